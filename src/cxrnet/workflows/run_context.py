"""The run of a training: its configuration, folder, command and MLflow run, begun and opened once.

Nothing heavy is imported here, so that a mistake is told at once.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich import get_console

from cxrnet.cli.run_folder import refuse_used
from cxrnet.core import console
from cxrnet.core.atomic import write_json
from cxrnet.core.config import Config, flat, plain_config, read_config, write_config
from cxrnet.core.machine import machine_told
from cxrnet.core.process import is_main_process
from cxrnet.errors import CxrnetError
from cxrnet.tracking.names import run_name
from cxrnet.tracking.record import RECORD, alone_in, read_record
from cxrnet.tracking.run import track
from cxrnet.tracking.store import tracking_uri
from cxrnet.tracking.sync import recorded_uri
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.workflows.resume import COMMAND, check_resumable, is_finished, without_resume
from cxrnet.workflows.study import SearchSettings, search_settings

if TYPE_CHECKING:
    from cxrnet.models.backbones.weights import LoadedWeights
    from cxrnet.training.schedule import PhaseResult

RUN_FACTS = "run_facts.json"
RUN_ID = re.compile(r"[0-9a-f]{32}")
"""Id of a run in MLflow."""


@dataclass(frozen=True)
class RunContext:
    """A run and where it is written.

    Attributes:
        config: plain, without ``resume``.
        folder: folder of the run.
        command: command that makes the run from its beginning.
        name: name of the run in MLflow.
        resumed: the folder's run goes on.
        uri: address of MLflow; ``None`` for no tracking.
        tracker: tells MLflow of the run; nobody until the run is :func:`opened`.
        parent: the run over folds or seeds that this one is a part of.
        sweep: the folder of the sweep that this one is a job of.
        job: its number there.
        search: settings of the search that this one is a trial of.
        data_digest: digest of the manifest, once the data are read.
        processes: processes that train together.
    """

    config: Config
    folder: Path
    command: tuple[str, ...]
    name: str
    resumed: bool
    uri: str | None
    tracker: TrackedRun
    parent: "RunContext | None" = None
    sweep: Path | None = None
    job: int | None = None
    search: SearchSettings | None = None
    data_digest: str = ""
    processes: int = 1

    def part(self, config: Config) -> "RunContext":
        """Return one of the runs over folds or seeds, in a folder of its own; it goes on where it was begun before."""
        name = part_name(config)
        folder = self.folder / name
        return replace(
            self,
            config=config,
            folder=folder,
            name=f"{self.name} {name}",
            resumed=(folder / RECORD).is_file(),
            tracker=TrackedRun(folder),
            parent=self,
        )


def begin(config: DictConfig, hydra: HydraConf) -> RunContext:
    """Begin to write to a run's folder, with ``conf/train.yaml`` as composed and Hydra's own configuration.

    Raises:
        CxrnetError: the folder holds a run that is not to be resumed or can't be, or a sweep asks for several devices.
    """
    plain, folder = plain_config(config), Path(hydra.runtime.output_dir)
    sweep = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    search = search_settings(hydra.sweeper)
    if sweep is None and (search is not None or hydra.sweeper.get("params")):
        raise CxrnetError("hydra.sweeper: there is something to search, but this would be one run; add -m")
    # A job of a sweep that is resumed may not have begun.
    resumed = plain.pop("resume") is not None and (sweep is None or (folder / RECORD).is_file())
    command = (*COMMAND, *without_resume(hydra.overrides.task))
    changes: list[str] = []
    if is_main_process():
        if resumed:
            with alone_in(folder):  # a run that is about to end is not resumed, and one that has just ended is finished
                pass
            changes = check_resumable(folder, plain)
        else:
            refuse_used(folder, RECORD, "a run")
    get_console().quiet = not is_main_process()
    console.log_to(folder)
    if sweep is not None:
        console.heading(f"Job {hydra.job.num}: {shlex.join(command)}")
    if resumed:
        console.heading("Resumed")
        console.say("run", str(folder))
        for change in changes:
            console.say("changed", change)
    uri = store_of(plain)
    if uri and resumed and (read_config(folder) or plain)["tracking"]["uri"] == plain["tracking"]["uri"]:
        uri = recorded_uri(folder, uri)  # which a relative path, or another environment, does not change
    name = run_name(hydra.runtime.choices["model"], hydra.runtime.choices["data"], command[len(COMMAND) :])
    run = RunContext(plain, folder, command, name, resumed, uri, TrackedRun(folder), sweep=sweep, search=search)
    return run if sweep is None else replace(run, job=int(hydra.job.num))


def finished_score(config: DictConfig, hydra: HydraConf) -> float | None:
    """Return the score of a job that was finished before its sweep was resumed; ``None`` where there is more to do."""
    plain, folder = plain_config(config), Path(hydra.runtime.output_dir)
    if plain.pop("resume") is None or hydra.mode != RunMode.MULTIRUN or not is_finished(folder, plain):
        return None
    kept = [phase["kept_score"] for phase in read_run_facts(folder)["phases"] if phase["kept"]]
    return float(sum(kept) / len(kept))


def store_of(config: Config) -> str | None:
    """Return the address of the MLflow that a plain configuration names; ``None`` for no tracking."""
    tracking = config["tracking"]
    return tracking_uri(tracking["uri"], Path(config["outputs"])) if tracking["enabled"] else None


@contextmanager
def tracked(
    config: Config, folder: Path, name: str, command: Sequence[str], experiment: str | None = None
) -> Iterator[TrackedRun]:
    """Track a command that works on finished runs, as its plain configuration says; ``experiment`` wins over it."""
    tracking, outputs = config["tracking"], Path(config["outputs"])
    where = (folder, store_of(config), experiment or tracking["experiment"], outputs)
    with track(*where, name, command, system_metrics=tracking["system_metrics"]) as run, machine_told():
        yield run


@contextmanager
def opened(run: RunContext) -> Iterator[RunContext]:
    """Track a run while it is at work, and write its configuration.

    Yields:
        The run with its tracker.

    Raises:
        CxrnetError: MLflow's store can't be used, or another process is at work in the folder.
    """
    tracking, parent = run.config["tracking"], run.parent
    of_sweep = read_record(run.sweep).get("run_id") if run.sweep else None
    tracked = track(
        run.folder,
        run.uri,
        tracking["experiment"],
        Path(run.config["outputs"]),
        run.name,
        () if parent else run.command,  # a part alone can't be resumed
        parent_run_id=parent.tracker.run_id if parent else of_sweep,
        resume=run.resumed,
        system_metrics=parent is None and tracking["system_metrics"],
    )
    with tracked as tracker, machine_told():
        tracker.log_params(flat(run.config))
        if is_main_process():
            tracker.log_artifact(write_config(run.folder, run.config))
        if run.sweep and not run.parent:
            tracker.set_tags({"cxrnet.overrides": shlex.join(run.command[len(COMMAND) :])})
        yield replace(run, tracker=tracker)


def part_name(config: Config) -> str:
    """Name one of the runs over folds or seeds by its configuration: ``seed0_fold1of5``, ``seed2``."""
    return f"seed{config['seed']}" + (f"_fold{config['fold']}of{config['folds']}" if config["fold"] else "")


def part_configs(config: DictConfig) -> list[Config]:
    """Make the configurations of the runs that ``folds`` and ``seeds`` ask for, those of one seed together.

    Each is plain, has its seed in every place that takes it, and its ``fold``, from 1, or ``None``. There are none
    where neither folds nor seeds are given.

    Raises:
        CxrnetError: one of them is not usable, or the trainer uses several devices.
    """
    plain = plain_config(config)
    folds, seeds = plain["folds"], plain["seeds"]
    if folds is None and seeds is None:
        return []
    if _several_devices(plain["trainer"]):
        # Lightning starts the other processes with the command line of all runs.
        raise CxrnetError("trainer: folds and seeds can't train on several devices; give trainer.devices=1")
    if folds is not None and folds < 3:
        raise CxrnetError(f"folds: {folds}; give a whole number from 3 on (one part is test, one val, the rest train)")
    seeds = [plain["seed"]] if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**31 for seed in seeds):
        raise CxrnetError(f"seeds: {seeds}; give a list of different whole numbers from 0 on, as [0,1,2]")
    found = []
    for seed in seeds:
        own = plain_config(OmegaConf.merge(config, {"seed": seed}))  # type: ignore[arg-type]
        del own["resume"]
        # All runs share the images, also where a source draws them by the seed.
        own["data"]["manifest"] = plain["data"]["manifest"]
        found += [{**own, "fold": fold} for fold in (range(1, folds + 1) if folds else [None])]
    return found


def check_one_device(config: DictConfig) -> None:
    """Refuse a job of a sweep that trains on several devices.

    Lightning starts the other processes with the command line of the sweep, and each would begin it anew.

    Raises:
        CxrnetError: it does, or may.
    """
    trainer: Config = OmegaConf.to_container(config.get("trainer") or OmegaConf.create())  # type: ignore[assignment]
    if _several_devices(trainer):
        raise CxrnetError(
            "trainer: a job of a sweep can't train on several devices; give trainer=auto trainer.devices=1, or start "
            "the jobs singly"
        )


def _several_devices(trainer: Config) -> bool:
    """Tell whether a group ``trainer`` trains in several processes, or may, as with all devices that there are."""
    devices = trainer.get("devices", 1)
    one = str(devices) == "1" or (isinstance(devices, list) and len(devices) == 1)
    return not one or trainer.get("num_nodes", 1) > 1 or trainer.get("strategy", "auto") != "auto"


def write_run_facts(
    run: RunContext, parameters: int, weights: "LoadedWeights", phases: Sequence["PhaseResult"]
) -> None:
    """Write ``run_facts.json``: what neither the configuration nor the results tell of a run."""
    facts = {
        "parameters": parameters,
        "weights": asdict(weights),
        "phases": [asdict(phase) for phase in phases],
        "command": list(run.command),
    }
    write_json(run.folder / RUN_FACTS, facts)


def write_facts_of_all(folder: Path, runs: Sequence[Path], command: Sequence[str]) -> None:
    """Write the facts of a run over folds or seeds: what its runs share, and all of their phases."""
    found = {run.name: read_run_facts(run) for run in runs}
    first, *others = found.values()
    common = {name: first[name] for name in ("parameters", "weights") if all(o[name] == first[name] for o in others)}
    phases = [{"run": name, **phase} for name, facts in found.items() for phase in facts["phases"]]
    write_json(folder / RUN_FACTS, {**common, "runs": [*found], "phases": phases, "command": list(command)})


def read_run_facts(folder: Path) -> dict[str, Any]:
    """Read ``run_facts.json`` of a run; empty where there is none."""
    file = folder / RUN_FACTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
