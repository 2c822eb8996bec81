"""The files of checkpoints: where they lie, how they are written, and the weights in them."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import nn

from cxrnet.errors import CxrnetError
from cxrnet.models.weights import UNREADABLE
from cxrnet.whole_file import whole_file

PLAIN: dict[str, Any] = {"map_location": "cpu", "weights_only": True, "mmap": True}  # read as far as it is needed

_PREFIX = "network."  # of the network's weights in the state of a classifier


def checkpoint(folder: Path, phase: str, name: Literal["kept", "last"]) -> Path:
    """The file of a checkpoint in a run's folder."""
    return folder / "checkpoints" / phase / f"{name}.ckpt"


class PlainFiles(TorchCheckpointIO):
    """Writes a checkpoint straight to the disk, in a third of the time that Lightning takes by way of memory."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Lightning calls it in the first process only, and lets the others go on when it is done."""
        with whole_file(Path(path)) as partial:
            torch.save(checkpoint, partial)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds. Reading it runs no code.

    Raises:
        CxrnetError: the file is missing or damaged, or no checkpoint of a run.
    """
    try:
        content = torch.load(path, **PLAIN)
    except UnpicklingError as error:
        raise CxrnetError(
            f"resume: '{path}' holds something else than plain values and is not loaded, for it could run code; start "
            "a new run"
        ) from error
    except UNREADABLE as error:
        missing = "can't be read" if path.exists() else "is missing"
        raise CxrnetError(f"resume: '{path}' {missing}; bring it back, or start a new run") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CxrnetError(f"resume: '{path}' is no checkpoint of a run; bring that back, or start a new run")
    return content


def load_kept(network: nn.Module, folder: Path, phase: str) -> None:
    """Load the weights that a phase keeps; frozen ones that its checkpoint lacks are those that the network has.

    Raises:
        CxrnetError: the checkpoint is missing, damaged or of another network.
    """
    kept = checkpoint(folder, phase, "kept")
    try:
        network.load_state_dict(_whole(network, read_checkpoint(kept)))
    except (RuntimeError, TypeError) as error:
        raise CxrnetError(f"resume: '{kept}' is of another network; bring that back, or start a new run") from error


@rank_zero_only
def complete_kept(network: nn.Module, folder: Path, phase: str) -> None:
    """Add the weights that were frozen in a phase to its ``kept.ckpt``, when it is over.

    Args:
        network: with these weights.
        folder: of the run.
        phase: its name.
    """
    kept = checkpoint(folder, phase, "kept")
    content = read_checkpoint(kept)
    whole = {f"{_PREFIX}{name}": value for name, value in _whole(network, content).items()}
    if not whole.keys() <= content["state_dict"].keys():
        with whole_file(kept) as partial:
            torch.save({**content, "state_dict": content["state_dict"] | whole}, partial)


def _whole(network: nn.Module, content: dict[str, Any]) -> dict[str, torch.Tensor]:
    saved = content["state_dict"].items()
    return network.state_dict() | {k.removeprefix(_PREFIX): v for k, v in saved if k.startswith(_PREFIX)}
