"""Each command writes to a folder of its own, also of two that begin in the same second.

Hydra makes a command's folder and writes ``.hydra/`` to it before the command is called, so this comes before that.
"""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from cxrnet.cli.run_folder import refuse_used
from cxrnet.core.machine import check_writable
from cxrnet.core.process import is_main_process
from cxrnet.errors import CxrnetError

SWEEP = "multirun.yaml"  # Hydra writes it to the folder of a sweep


class OwnFolder(Callback):
    """Takes a folder that nobody has where the user names none, and leaves one alone that another command has used.

    Args:
        file: that stands in a folder that the command has used.
        what: such a folder holds.
    """

    def __init__(self, file: str, what: str) -> None:
        self.file = file
        self.what = what

    def on_run_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401 (Hydra's own signature)
        """See to the folder of a command; one that goes on with a run (``output_subdir=null``) has its own already."""
        if config.hydra.output_subdir is not None:
            self._take(config, "run", self.file, self.what)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401
        """See to the folder of a sweep."""
        self._take(config, "sweep", SWEEP, "a sweep")

    def _take(self, config: DictConfig, mode: str, file: str, what: str) -> None:
        from cxrnet.cli.app import refusal

        if not is_main_process():
            return
        if config.get("outputs") == "":  # or the folder would lie at the root of the file system
            raise refusal("outputs: '' is no folder; give one, as outputs=outputs, or leave it out")
        HydraConfig.instance().set_config(config)  # as Hydra does before it resolves the folder's name itself
        key = f"hydra.{mode}.dir"
        asked = any(word.lstrip("+").startswith(f"{key}=") for word in config.hydra.overrides.hydra)
        folder = Path(config.hydra[mode].dir)
        try:
            if asked:
                refuse_used(folder, file, what, key)
                check_writable(folder, key)
                return
            check_writable(folder.parent, "outputs")
        except CxrnetError as error:
            raise refusal(str(error)) from error  # Hydra makes a warning of any other exception
        free = unused(folder)
        if free != folder:
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra[mode].dir = str(free)
                config.hydra.overrides.hydra.append(f"{key}='{_escaped(str(free))}'")  # for the jobs of a sweep


def unused(folder: Path) -> Path:
    """Make a folder that was not there: of this name or, where another command was faster, with a number behind it."""
    free, number = folder, 1
    while True:
        try:
            free.mkdir(parents=True)
        except FileExistsError:
            number += 1
            free = folder.with_name(f"{folder.name}_{number}")
        else:
            return free


def _escaped(text: str) -> str:
    return text.replace("'", r"\'")
