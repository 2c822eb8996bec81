"""The folder that a command writes to: its own, never over what is there, called as a person would type it."""

import logging
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from cxrnet.core import console
from cxrnet.core.launch import launched, said_by_the_first
from cxrnet.core.machine import check_writable
from cxrnet.core.process import is_main_process
from cxrnet.errors import CxrnetError

_SWEEP = "multirun.yaml"  # Hydra writes it to the folder of a sweep
_TRACES = {".hydra", "run.log", ".lock"}


def refuse_used(folder: Path, file: str, what: str, key: str = "hydra.run.dir") -> None:
    """Refuse a folder in which the file of an earlier command stands.

    Args:
        folder: where to write.
        file: file that tells of it.
        what: the folder then holds: ``a comparison``.
        key: key of the configuration, which names the folder.
    """
    if (folder / file).exists():
        raise CxrnetError(f"'{folder}' holds {what} already; give another {key}=<folder>, or leave it out")


def discard(folder: Path) -> None:
    """Remove the folder of a command that was refused, if nothing but Hydra's notes and a log lies in it."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= _TRACES:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()
        shutil.rmtree(folder, ignore_errors=True)


def shown(folder: Path) -> Path:
    """Return the folder from where the person is, if it lies below; else the whole of it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def places_of_run(folder: Path, run_id: str | None, uri: str | None) -> dict[str, str]:
    """Name the places of what a run left, in its folder and in MLflow."""
    files = {"report": "report.html", "bundle": "bundle", "spread": "repeats.csv"}
    found = {label: str(shown(folder) / file) for label, file in files.items() if (folder / file).exists()}
    found["everything"] = str(shown(folder))
    if uri is None:
        return {**found, "MLflow": "not tracked"}
    address = f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri.startswith("sqlite") else uri
    return {**found, "MLflow": f"run {run_id}", "MLflow UI": address}


def say_places(places: Mapping[str, str]) -> None:
    """Say where things are, by what they are."""
    console.heading("Where things are")
    for label, place in places.items():
        console.say(label, place)


@contextmanager
def _refused() -> Iterator[None]:
    """End in one line on a mistake; Hydra makes a warning of any other exception of a callback."""
    try:
        yield
    except CxrnetError as error:
        raise console.refusal(str(error)) from error


class OwnFolder(Callback):
    """Takes a folder that nobody has where the user names none, and leaves one alone that another command has used.

    Hydra makes a command's folder and writes ``.hydra/`` to it before the command is called, so this comes before that.
    Commands that begin in the same second get one each.

    Args:
        file: file that stands in a folder that the command has used.
        what: such a folder holds.
    """

    def __init__(self, file: str, what: str) -> None:
        self.file = file
        self.what = what

    def on_run_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401 (Hydra's own signature)
        """See to the folder of a command; one that goes on with a run (``output_subdir=null``) has its own already."""
        if config.hydra.output_subdir is not None:
            if is_main_process():
                self._take(config, "run", self.file, self.what)
            _agree(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401
        """See to the folder of a sweep; one that is resumed has its own already, some commands have none."""
        if Path(config.hydra.sweep.dir) == Path():
            raise console.refusal("-m: this command has no folder for several jobs; leave -m out")
        if config.get("resume") is None and is_main_process():
            self._take(config, "sweep", _SWEEP, "a sweep")

    def _take(self, config: DictConfig, mode: str, file: str, what: str) -> None:
        if config.get("outputs") == "":  # or the folder would lie at the root of the file system
            raise console.refusal("outputs: '' is no folder; give one, as outputs=outputs, or leave it out")
        HydraConfig.instance().set_config(config)  # as Hydra does before it resolves the folder's name itself
        key = f"hydra.{mode}.dir"
        folder = Path(config.hydra[mode].dir)
        with _refused():
            if any(word.lstrip("+").startswith(f"{key}=") for word in config.hydra.overrides.hydra):
                refuse_used(folder, file, what, key)
                check_writable(folder, key)
                return
            check_writable(folder.parent, "outputs")
        free, number = folder, 1
        while True:
            try:
                free.mkdir(parents=True)
                break
            except FileExistsError:  # another command was faster
                number += 1
                free = folder.with_name(f"{folder.name}_{number}")
        if free != folder:
            quoted = str(free).replace("'", r"\'")
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra[mode].dir = str(free)
                config.hydra.overrides.hydra.append(f"{key}='{quoted}'")  # for the jobs of a sweep


def _agree(config: DictConfig) -> None:
    """Give the processes of torchrun or srun, which may have begun in another second, the folder of the first one."""
    if (launch := launched()) is None:
        return
    with _refused(), read_write(config.hydra), open_dict(config.hydra):
        if is_main_process():
            said_by_the_first(launch, str(config.hydra.run.dir))
        else:
            config.hydra.run.dir = said_by_the_first(launch)
            config.hydra.output_subdir = None  # the first alone writes Hydra's notes
