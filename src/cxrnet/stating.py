"""What a run states of its data before it trains: on the console, in its folder and in MLflow."""

from pathlib import Path

from cxrnet.audit.conflicts import conflict_statement, write_conflicts
from cxrnet.audit.statement import leak_statement
from cxrnet.configuration import Config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.methods import IMAGE_FOLDS, sources_of
from cxrnet.models.losses import corrected_twice
from cxrnet.processes import is_main_process
from cxrnet.resume import check_same_data
from cxrnet.summary import SPLITS, say_data
from cxrnet.tracking.tracked import TrackedRun


def state_data(data: XrayDataModule, config: Config, run: TrackedRun, folder: Path, resumed: bool) -> list[str]:
    """Say what the data are, write their manifest and log it.

    Args:
        data: set up and split.
        config: plain.
        run: that tracks it.
        folder: of the run.
        resumed: the folder's run goes on.

    Returns:
        What :func:`data_warnings` does, and what was said while the data were read.

    Raises:
        CxrnetError: the data of a resumed run have changed.
    """
    warnings = data_warnings(data, config)
    if is_main_process():
        if resumed:
            check_same_data(folder, data.manifest)
        say_data(data, warnings)
        file = folder / "manifest.parquet"
        write_manifest(data.manifest, file)
        write_conflicts(data.copies, data.manifest, folder)
        counts = {split: dict(zip(data.classes, data.counts(split), strict=True)) for split in SPLITS}
        run.log_dataset(sources_of(data), digest(data.manifest), str(file), counts, "training")
    return [*warnings, *data.notes]  # the console has them, from when the data were read


def data_warnings(data: XrayDataModule, config: Config) -> list[str]:
    """What a reader must know of the data before the numbers, in sentences."""
    warnings = leak_statement(data.manifest) + conflict_statement(data.copies, data.manifest)
    if config["folds"] and config["folds_by"] == "image":
        warnings.insert(0, IMAGE_FOLDS)
    if data.limit is not None:
        warnings.append(f"no more than {data.limit} images of each class in each split were used (data.limit)")
    return warnings + corrected_twice(data.sampler, config["loss"]["class_weights"])
