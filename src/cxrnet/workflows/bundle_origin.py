"""Where a bundle comes from: the run that made it, the images it was made with, its result on its own test images."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from cxrnet.data.leaks import leaked_images
from cxrnet.data.manifest import digest, read_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import logits_of, read_predictions
from cxrnet.evaluation.prior import Mix
from cxrnet.inference import predictions_of
from cxrnet.models.bundle import Bundle, load_bundle
from cxrnet.reporting.model_card import Card, read_card
from cxrnet.tracking.read import fetch_run
from cxrnet.tracking.record import read_record

RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Origin:
    """A bundle and what is known of its run.

    Attributes:
        bundle: the model.
        place: what the user called it.
        run_id: of the run in MLflow; ``None`` where it isn't known.
        manifest: of the run's images, with their splits; ``None`` where none that fits the bundle lies beside it.
        test: the run's own predictions of its test images that weren't seen before; ``None`` where there are none.
        card: of the model; ``None`` where there is none.
        seen: test images that were seen before: their patient, or a copy, is in train or val.
    """

    bundle: Bundle
    place: str
    run_id: str | None
    manifest: pd.DataFrame | None
    test: pd.DataFrame | None
    card: Card | None
    seen: int


def find_origin(place: str, uri: str) -> Origin:
    """Open a bundle.

    Args:
        place: the folder of a bundle or of a run, or the id of an MLflow run.
        uri: of MLflow, asked for run ids only.

    Raises:
        CxrnetError: there is no bundle, or a file of its run is damaged.
    """
    folder = Path(place)
    if folder.is_dir():
        inside = (folder / "bundle").is_dir()
        return _open(folder / "bundle" if inside else folder, folder if inside else folder.resolve().parent, place)
    if not RUN_ID.fullmatch(place):
        raise CxrnetError(f"bundle: '{place}' is no folder and no id of an MLflow run; give one of them")
    with TemporaryDirectory() as scratch:
        run = fetch_run(uri, place, Path(scratch))
        return _open(run / "bundle", run, place, place)


def at_mix(origin: Origin, mix: Mix) -> Origin:
    """Carry the bundle's own test result over to another prior, so that it stands beside others at the same."""
    if origin.test is None or mix.asked is None:
        return origin
    return replace(origin, test=predictions_of(origin.bundle, origin.test, logits_of(origin.test), mix))


def _open(folder: Path, run: Path, place: str, run_id: str | None = None) -> Origin:
    bundle = load_bundle(folder)
    manifest = _own_manifest(bundle, run / "manifest.parquet")
    if manifest is None:
        return Origin(bundle, place, run_id, None, None, None, 0)
    test = read_predictions(run / "predictions.parquet").query("split == 'test'")
    seen = test["image_id"].isin(leaked_images(manifest, "test"))
    unseen = test[~seen].reset_index(drop=True)
    run_id = run_id or read_record(run).get("run_id")
    return Origin(bundle, place, run_id, manifest, unseen if len(unseen) else None, read_card(run), int(seen.sum()))


def _own_manifest(bundle: Bundle, file: Path) -> pd.DataFrame | None:
    """The manifest that lies in the run's folder, if it is of the data that the bundle was trained on."""
    if not file.is_file():
        return None
    manifest = read_manifest(file)
    return manifest if digest(manifest) == bundle.manifest_digest else None
