"""What comes before a run: what is refused without looking at data, the log, the first words on the console."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich import get_console

from cxrnet.cli.app import config_folder
from cxrnet.cli.hydra_errors import NO_MODE
from cxrnet.cli.run_folder import refuse_used
from cxrnet.core import console
from cxrnet.core.config import Config, plain_config
from cxrnet.core.process import is_main_process
from cxrnet.data.settings import check_numbers
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.settings import check_settings, check_share
from cxrnet.tracking.record import RECORD, alone_in
from cxrnet.training.schedule import check_precision
from cxrnet.workflows.added_keys import check_added_keys
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


def check_config(config: Config) -> None:
    """Refuse what can be told by the configuration alone, before anything heavy is imported.

    Raises:
        CxrnetError: a number of the groups data, schedule or evaluation, the seed or the precision won't do, a key is
            added that nothing reads, the trainer shall be exact and try what is fastest, batches of one meet batch
            norms, or it is not said which class one logit is of.
    """
    seed = config["seed"]
    if not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise CxrnetError(f"seed: {seed} is no seed; give a whole number from 0 to 2147483647")
    trainer = config["trainer"]
    # What `auto` comes to is known to torch alone: cxrnet.workflows.build.check_trainer sees that.
    check_precision(trainer.get("precision", "32-true"), on_cpu=trainer.get("accelerator") == "cpu")
    if trainer.get("deterministic") and trainer.get("benchmark"):
        raise CxrnetError("trainer.deterministic: not while trainer.benchmark=true; give trainer.benchmark=false")
    if not isinstance(config["compile"], bool):
        raise CxrnetError(f"compile: {config['compile']} is neither true nor false")
    data = config["data"]
    check_numbers(data["size"], data["batch_size"], data["sampler"], data["num_workers"], data["limit"])
    if data["batch_size"] == 1 and config["model"]["batch_norm"] is True:
        raise CxrnetError(
            "data.batch_size: 1, but the batch norms of the head (model.batch_norm=true) need several images; give "
            "data.batch_size=2 or more, or model.batch_norm=false"
        )
    check_settings(config["evaluation"])
    check_share(config["refer"])
    if "mode" in config["schedule"]:
        raise CxrnetError(NO_MODE)
    check_added_keys(config, config_folder(), "train")
    instantiate(config["schedule"], _convert_="object")  # which refuses what is none
    if config["model"]["output"] == "sigmoid" and config["data"]["classes"] is None:
        # Not left to the alphabet.
        raise CxrnetError(
            "data.classes: model.output=sigmoid needs to know the positive class; give [negative, positive]"
        )


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
