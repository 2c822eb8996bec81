"""Does the audit find a planted marker, and stay quiet without one? Phantoms, trained on and audited, seed by seed.

    python scripts/audit_phantoms.py seeds=20 out=audit_phantoms.csv weights=<mobilenet_v2 file>
    python scripts/audit_phantoms.py box data=<folder of covid_chestxray>

Each seed draws one set of phantoms without a marker and the same with "AP" burnt into the corner at the top right of
nine of ten COVID-19 images, trains the default head on the frozen backbone, and audits the run. A verdict is right if
it names the corners for COVID-19 and no other class, or, without a marker, finds nothing. A row is written as soon as
it is known; a file that is there is gone on with. ``box`` states how much of the lung masks of a data set lies in the
box that stands for lungs where there are none.
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from hydra.core.global_hydra import GlobalHydra

MARKED, PLACE = "COVID-19", "top right"
COLUMNS = ["seed", "marker", "right", "findings", "corner", "accuracy", "seconds"]


def main(words: list[str]) -> None:
    """Run as the words say."""
    if {"-h", "--help"} & {*words}:
        print(__doc__)
        return
    given = dict(word.partition("=")[::2] for word in words)
    if "box" in given:
        print(box_share(Path(given["data"])))
        return
    out = Path(given.get("out", "audit_phantoms.csv"))
    rows = pd.read_csv(out).to_dict("records") if out.is_file() else []
    done = {(row["seed"], row["marker"]) for row in rows}
    images, weights = given.get("images", "400"), given.get("weights", "auto")
    for seed in range(int(given.get("first", "0")), int(given.get("seeds", "20"))):
        for marker in (0.9, 0.0):
            if (seed, marker) in done:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                rows.append(
                    judged(seed, marker, [f"data.manifest.images={images}", f"model.weights={weights}"], scratch)
                )
            pd.DataFrame(rows, columns=COLUMNS).to_csv(out, index=False)
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows, columns=COLUMNS)
    for marker, part in table.groupby("marker"):
        print(f"marker {marker}: {part['right'].sum()} of {len(part)} verdicts are right")


def judged(seed: int, marker: float, words: list[str], scratch: str) -> dict[str, object]:
    """Train and audit one set of phantoms; return a row."""
    began, run, audit = time.monotonic(), f"{scratch}/run", f"{scratch}/audit"
    own = [f"data.root={scratch}/data", f"+data.manifest.marker={marker}", f"data.manifest.seed={seed}"]
    size = ["data.manifest.size=128", "data.size=[128,128]"]
    command("train", "data=phantom", *own, *size, *words, f"seed={seed}", "evaluation.resamples=0", *ends(scratch, run))
    command("audit", f"bundle={run}", "maps=0", "resamples=500", f"seed={seed}", *ends(scratch, audit))
    looks = pd.read_csv(f"{audit}/audit_looks.csv")
    found = looks[looks["finding"]]
    named = [f"{row['kind']} {row['name']} {row['label']}" for row in found.to_dict("records")]
    page = Path(f"{audit}/audit.html").read_text(encoding="utf-8")
    corner = next(
        (name for name in (PLACE, "top left", "bottom left", "bottom right") if f"one at the {name}" in page), ""
    )
    in_corners = set(found.loc[found["name"].str.startswith("corners"), "label"])
    right = in_corners == set(found["label"]) == {MARKED} and corner == PLACE if marker else found.empty
    predictions = pd.read_parquet(f"{run}/predictions.parquet").query("split == 'test'")
    accuracy = float((predictions["label"] == predictions["predicted"]).mean())
    seconds = round(time.monotonic() - began, 1)
    return dict(zip(COLUMNS, [seed, marker, bool(right), "; ".join(named), corner, accuracy, seconds], strict=True))


def ends(scratch: str, folder: str) -> list[str]:
    """Return the words that say where a command writes."""
    return ["tracking=none", f"outputs={scratch}/outputs", f"hydra.run.dir={folder}"]


def command(name: str, *words: str) -> None:
    """Run a command of cxrnet in this process, without what it prints."""
    import contextlib
    import importlib
    import io

    main = importlib.import_module(f"cxrnet.{name}").main
    before, sys.argv = sys.argv, [name, *words]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as end:
        if end.code:
            raise SystemExit(said.getvalue()[-2000:]) from end
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
        for handler in list(logging.getLogger().handlers):
            handler.close()
            logging.getLogger().removeHandler(handler)


def box_share(root: Path) -> str:
    """State how much of each lung mask of covid_chestxray lies in the box, in words."""
    from PIL import Image

    from cxrnet.data.regions import lung_box

    files = sorted((root / "annotations" / "lungVAE-masks").glob("*_mask.png"))
    shares, pixels = [], np.zeros(2)
    for file in files:
        mask = np.asarray(Image.open(file).convert("L")) >= 128
        inside = mask & lung_box((mask.shape[0], mask.shape[1]))
        shares.append(inside.sum() / mask.sum())
        pixels += inside.mean(), mask.mean()
    return (
        f"{len(files)} masks: {pixels[0] / pixels[1]:.3f} of their area lies in the box, of the median one "
        f"{np.median(shares):.3f}, of the 5th percentile {np.quantile(shares, 0.05):.3f}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
