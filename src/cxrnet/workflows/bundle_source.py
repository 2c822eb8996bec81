"""Where a bundle comes from: a folder, a run, a run in MLflow, or a model of MLflow's registry."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrnet.data.manifest import digest, read_manifest
from cxrnet.errors import CxrnetError
from cxrnet.models.bundle import Bundle
from cxrnet.tracking.record import fetch_registered, fetch_run
from cxrnet.tracking.store import tracking_uri
from cxrnet.workflows.run_context import RUN_ID

_OF_RUN = re.compile(rf"(?:runs:/)?({RUN_ID.pattern})(?:/bundle)?")
_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")


@dataclass(frozen=True)
class BundleSource:
    """A bundle on this machine.

    Attributes:
        folder: the bundle.
        run: folder that holds what else is known of its run, as far as that is: ``manifest.parquet``,
            ``predictions.parquet``, ``metrics.json``. Of a bundle that was copied elsewhere it may hold anything.
        run_id: id of the run in MLflow, where it was named by that or found in the registry.
    """

    folder: Path
    run: Path
    run_id: str | None = None


def find_bundle(place: str, scratch: Path, uri: str | None = None, outputs: str = "outputs") -> BundleSource:
    """Find a bundle, and fetch it from MLflow where that has it alone.

    Args:
        place: the folder of a bundle or of a run; the id of a run in MLflow, or ``runs:/<id>/bundle``; or a registered
            model, ``models:/<name>@<alias>`` or ``models:/<name>/<version>``.
        scratch: an empty folder, for what is fetched.
        uri: address of MLflow, which only the last two ask; ``None``: ``MLFLOW_TRACKING_URI``, or the file in outputs.
        outputs: the folder of all runs.

    Raises:
        CxrnetError: there is no such folder, run or model, or it has no bundle.
    """
    folder = Path(place)
    if folder.is_dir():
        inside = folder / "bundle"
        return BundleSource(inside, folder) if inside.is_dir() else BundleSource(folder, folder.resolve().parent)
    if of_run := _OF_RUN.fullmatch(place):
        run = fetch_run(tracking_uri(uri, Path(outputs)), of_run[1], scratch)
        return BundleSource(run / "bundle", run, of_run[1])
    if named := _REGISTERED.fullmatch(place):
        run_id = fetch_registered(tracking_uri(uri, Path(outputs)), **named.groupdict(), scratch=scratch)
        return BundleSource(scratch / "bundle", scratch, run_id)
    raise CxrnetError(
        f"bundle: '{place}' is no folder, no id of an MLflow run and no registered model; give the folder of a run or "
        "bundle, a run's id, or models:/<name>@<alias>"
    )


def tested_metrics(source: BundleSource, bundle: Bundle) -> Mapping[str, Any] | None:
    """Read the metrics of a bundle's own test images, as ``metrics.json`` has them; ``None`` where none are there.

    What lies beside a bundle counts where its manifest is that of the bundle.
    """
    manifest, file = source.run / "manifest.parquet", source.run / "metrics.json"
    if not (manifest.is_file() and file.is_file()) or digest(read_manifest(manifest)) != bundle.manifest_digest:
        return None
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    tested = metrics.get("test")
    return tested if isinstance(tested, dict) else None
