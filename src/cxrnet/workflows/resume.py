"""``resume=<run folder>``: a run goes on where it stopped, in its folder and in its MLflow run.

Before Hydra composes the configuration, the run's own command line, as far as a file is trusted with it
(:mod:`cxrnet.workflows.recorded_command`), is put before the new one; what came of it must then be what the run began
with, but for what doesn't make its result a lie: where it is trained and tracked, and what the schedule still holds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from cxrnet.cli.app import config_folder
from cxrnet.core.config import Config, flat, read_config
from cxrnet.errors import CxrnetError
from cxrnet.tracking.record import RECORD, last_start, read_record
from cxrnet.tracking.sync import sync, unsent_runs
from cxrnet.workflows.recorded_command import check_recorded

if TYPE_CHECKING:
    import pandas as pd


COMMAND = ("python", "-m", "cxrnet.train")

MAY_CHANGE = (
    "trainer",
    "logger",
    "tracking",
    "outputs",
    "schedule",
    "finetune",
    "operating_points",
    "refer",
    "evaluation",
    "data.root",  # the digest of the data tells whether they are the same
    "data.manifest.root",
    "data.num_workers",
    "cache",
    "data.cache",
)
MUST_STAY = ("schedule.monitor", "schedule.views", "schedule.best_from")


def resumed_arguments(arguments: list[str]) -> list[str]:
    """The command line that Hydra gets: with ``resume=<folder>`` the run's own one, the new words in its place.

    A new word takes the place of the one with its key, and a new option of a group (``trainer=gpu``) also that of what
    was said of the old one (``trainer.devices=2``). Hydra is kept from making a folder and from writing over the one it
    made.

    Raises:
        CxrnetError: the folder holds no run of this command, its command line is more than a file is trusted with, or
            several runs are asked for.
    """
    given = [_key(word) for word in arguments if not word.startswith("-")]
    folder = next((_folder(word) for word in arguments if _key(word) == "resume"), None)
    if folder is None:
        return arguments
    if {"-m", "--multirun"} & set(arguments):
        raise CxrnetError("resume: one run goes on at a time; leave -m out")
    own = _command(folder)[len(COMMAND) :]
    kept = [word for word in own if not any(f"{_key(str(word))}.".startswith(f"{key}.") for key in given)]
    check_recorded(kept, config_folder())
    quoted = str(folder.resolve()).replace("'", r"\'")
    return [*kept, *arguments, f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]


def without_resume(overrides: Sequence[str]) -> list[str]:
    """The command line without ``resume``: what makes the same run from its beginning."""
    return [word for word in overrides if _key(word) != "resume"]


def check_resumable(folder: Path, config: Config) -> list[str]:
    """Check that a run goes on as it began.

    Args:
        folder: of the run.
        config: that it would go on with, plain.

    Returns:
        What has changed, ``["trainer.devices: 1 -> 2"]``.

    Raises:
        CxrnetError: something that must stay has changed, or there is nothing to go on with.
        SystemExit: there is nothing to do but to send what has not reached MLflow, which has been done.
    """
    if (began := read_config(folder)) is None:  # stopped before it was written: the run goes on from its start
        return []
    old, new = flat(began), flat(config)
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if fixed := [name for name in changed if not _may_change(name)]:
        name, was = fixed[0], old.get(fixed[0])
        if not any(f"{key}.".startswith(f"{name}.") for key in old):
            raise CxrnetError(
                f"resume: the run began without {name}, with another version of cxrnet or before it was added; start a "
                "new run"
            )
        raise CxrnetError(
            f"resume: {name} was {was} and would be {new.get(name)} now; a run goes on as it began: give {name}={was}, "
            "or start a new run"
        )
    if read_record(folder).get("status") == "FINISHED" and not any(name.startswith("schedule.") for name in changed):
        if any(unsent_runs(folder)):
            raise SystemExit(0 if sync([folder]) else 1)
        raise CxrnetError(
            f"resume: '{folder}' is finished; give it more to do, as finetune=true or a larger schedule.max_epochs"
        )
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in changed]


def check_same_data(folder: Path, manifest: "pd.DataFrame") -> None:
    """Check that the images and their split are those that the run began with.

    Raises:
        CxrnetError: they aren't.
    """
    from cxrnet.data.manifest import digest, read_manifest

    file = folder / "manifest.parquet"
    if not file.exists():  # stopped while it read the images
        return
    if digest(began := read_manifest(file)) != digest(manifest):
        raise CxrnetError(
            f"resume: the data have changed: other images, labels, patients or splits than the {len(began)} rows of "
            f"'{file}'; put them back, or start a new run"
        )


def _folder(word: str) -> Path | None:
    """What ``resume=`` names; ``None`` for null and for what Hydra will complain of."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return None
    if override.is_sweep_override():
        raise CxrnetError("resume: one run goes on at a time; give one folder")
    value = override.value()
    return None if value in (None, "") else Path(str(value))


def _command(folder: Path) -> list[str]:
    """The command that the run was last started with, as it stands in the file."""
    if not folder.is_dir():
        raise CxrnetError(f"resume: '{folder}' is not a folder; give that of a run, as outputs/runs/<time>_<name>")
    try:
        command = last_start(read_record(folder))["command"]
    except (LookupError, TypeError):  # of another command, or made up
        command = None
    if not isinstance(command, list) or tuple(command[: len(COMMAND)]) != COMMAND:
        raise CxrnetError(
            f"resume: '{folder}' holds no run of {COMMAND[-1]} (no {RECORD} of one); give the folder of a run"
        )
    return command


def _key(word: str) -> str:
    """``model`` of ``model=resnet50``, ``finetune`` of ``+finetune=true``."""
    return word.lstrip("+~").partition("=")[0]


def _may_change(name: str) -> bool:
    return name not in MUST_STAY and any(f"{name}.".startswith(f"{free}.") for free in MAY_CHANGE)
