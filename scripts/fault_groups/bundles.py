"""Bundles that were damaged or edited: ``cxrnet.predict`` must refuse them."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fault_groups.bench import LONGEST, Bench, Try, environment, last_line, side_by_side
from fault_groups.caches import cut, empty, flip, remove, scramble

Change = Callable[[Path, random.Random], None]
FLIPS = 5


def _put(*keys: Any, value: Any) -> Change:  # noqa: ANN401 (whatever JSON holds)
    """Make a change of one value of bundle.json."""

    def change(bundle: Path, _rng: random.Random) -> None:
        file = bundle / "bundle.json"
        description = json.loads(file.read_text(encoding="utf-8"))
        place = description
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value(place[keys[-1]]) if callable(value) else value
        file.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    return change


def _to(name: str, damage: Change) -> Change:
    return lambda bundle, rng: damage(bundle / name, rng)


def _other_weights(bundle: Path, _rng: random.Random) -> None:
    """Put weights of the same shapes, all halved, in the place of the bundle's own."""
    from safetensors.torch import load_file, save_file

    file = bundle / "model.safetensors"
    save_file({name: tensor / 2 for name, tensor in load_file(file).items()}, file)


WEIGHTS, JSON = "model.safetensors", "bundle.json"
CHANGES: dict[str, Change] = {
    **{f"weights: one bit turned ({number + 1})": _to(WEIGHTS, flip) for number in range(FLIPS)},
    "weights: cut": _to(WEIGHTS, cut),
    "weights: empty": _to(WEIGHTS, empty),
    "weights: missing": _to(WEIGHTS, remove),
    "weights: noise": _to(WEIGHTS, scramble),
    "weights: others of the same shapes": _other_weights,
    "bundle.json: one bit turned": _to(JSON, flip),
    "bundle.json: cut": _to(JSON, cut),
    "bundle.json: empty": _to(JSON, empty),
    "bundle.json: missing": _to(JSON, remove),
    "bundle.json: noise": _to(JSON, scramble),
    "classes swapped": _put("network", "classes", value=lambda names: names[::-1]),
    "one class doubled": _put("network", "classes", value=lambda names: [names[0], *names[:-1]]),
    "classes are numbers": _put("network", "classes", value=[0, 1, 2]),
    "mean is NaN": _put("network", "mean", value=[float("nan")] * 3),
    "mean moved by 0.01": _put("network", "mean", value=lambda mean: [number + 0.01 for number in mean]),
    "standard deviation is 0": _put("network", "std", value=[0.0] * 3),
    "size is negative": _put("network", "size", value=[-32, 32]),
    "size is doubled": _put("network", "size", value=[64, 64]),
    "dropout is text": _put("network", "dropout", value="a little"),
    "resize is another rule": _put("resize", value="pad"),
    "resize is no rule": _put("resize", value="squeeze"),
    "temperature -1": _put("temperature", value=-1),
    "temperature 0": _put("temperature", value=0),
    "temperature NaN": _put("temperature", value=float("nan")),
    "temperature doubled": _put("temperature", value=lambda number: 2 * number),
    "operating point 7": _put("operating_points", value={"Covid": 7}),
    "operating point of a class that is not there": _put("operating_points", value={"Flu": 0.5}),
    "deferral threshold added": _put("defer_below", value=0.9),
    "prior of other shares": _put("prior", value=lambda prior: dict(zip(prior, (0.98, 0.01, 0.01), strict=True))),
    "format is text": _put("format", value="three"),
    "manifest digest of other data": _put("manifest_digest", value="0" * 64),
}


def bundles(bench: Bench, rng: random.Random, times: int | None) -> Iterator[Try]:
    """Predict with each changed bundle.

    Args:
        bench: where.
        rng: draws the bits, and the changes where there are more than ``times``.
        times: so many of them only.

    Raises:
        RuntimeError: the bundle as it is doesn't predict.
    """
    folder = bench.place("bundle")
    shutil.copytree(bench.undisturbed / "bundle", folder / "bundle")
    if (done := _predict(bench, folder)).returncode != 0:
        raise RuntimeError(f"the bundle as it is doesn't predict:\n{done.stderr}")
    names = list(CHANGES) if times is None else rng.sample(list(CHANGES), min(times, len(CHANGES)))
    return side_by_side(
        "bundles",
        [
            partial(_change, bench, f"bundle-{number}", name, random.Random(rng.random()))
            for number, name in enumerate(names)
        ],
    )


def _change(bench: Bench, place: str, name: str, rng: random.Random) -> Try:
    folder = bench.place(place)
    shutil.copytree(bench.undisturbed / "bundle", folder / "bundle")
    CHANGES[name](folder / "bundle", rng)
    done = _predict(bench, folder)
    lines = done.stderr.splitlines()
    lost = [f"{Path(file).name} written" for file in folder.glob("p.csv*")]
    if done.returncode == 0:
        lost.insert(0, "predicts without a word")
    elif "Traceback" in done.stderr:
        lost.insert(0, f"a traceback ({last_line(done.stderr)})")
    elif done.returncode != 2 or len(lines) != 1:
        lost.insert(0, f"ends with {done.returncode} and {len(lines)} lines")
    return Try("bundles", name.partition(" (")[0], lost, lines[0] if len(lines) == 1 else "")


def _predict(bench: Bench, folder: Path) -> "subprocess.CompletedProcess[str]":
    words = ["bundle=bundle", f"input={bench.top / 'xrays' / 'Covid' / '00.png'}", "output=p.csv", "device=cpu"]
    return subprocess.run(
        [sys.executable, "-m", "cxrnet.predict", *words],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip
