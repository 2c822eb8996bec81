"""What comes before a run: what is refused without looking at data, the log, the first words on the console."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich import get_console

from cxrnet.cli.run_folder import refuse_used
from cxrnet.core import console
from cxrnet.core.config import Config, plain_config
from cxrnet.core.process import is_main_process
from cxrnet.errors import CxrnetError
from cxrnet.tracking.record import RECORD, alone_in
from cxrnet.workflows.resume import check_resumable


def start(config: DictConfig, folder: Path, command: Sequence[str], in_sweep: bool) -> tuple[Config, bool]:
    """Open a run's folder.

    Args:
        config: as composed from ``conf/train.yaml``.
        folder: of the run.
        command: that is run.
        in_sweep: this is one of several jobs.

    Returns:
        The configuration as plain data, without ``resume``, and whether the folder's run is resumed.

    Raises:
        CxrnetError: the folder holds a run that is not to be resumed or can't be, or a sweep asks for several devices.
    """
    plain = plain_config(config)
    resumed = plain.pop("resume") is not None
    changes = _check_folder(folder, plain, resumed) if is_main_process() else []
    get_console().quiet = not is_main_process()
    console.log_to(folder)
    if in_sweep:
        _begin_job(plain["trainer"], command)
    if resumed:
        console.heading("Resumed")
        console.say("run", str(folder))
        for change in changes:
            console.say("changed", change)
    return plain, resumed


def _check_folder(folder: Path, config: Config, resumed: bool) -> list[str]:
    """Refuse to write over a run; tell with what a resumed run goes on that is new."""
    if resumed:
        with alone_in(folder):  # a run that is about to end is not resumed, and one that has just ended is finished
            pass
        return check_resumable(folder, config)
    refuse_used(folder, RECORD, "a run")
    return []


def _begin_job(trainer: Config, command: Sequence[str]) -> None:
    """Say which job of a sweep begins."""
    if str(trainer.get("strategy", "")).startswith("ddp"):
        # Lightning starts the other processes with the command line of the whole sweep, and each would begin it anew.
        raise CxrnetError("trainer: a sweep can't train on several devices; give trainer=gpu, or start the jobs singly")
    console.heading(shlex.join(command))
