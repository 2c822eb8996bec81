"""The bundle: one trained model in a folder, complete and without pickle.

``model.safetensors`` holds the tensors, ``bundle.json`` everything else that a prediction depends on. Whatever
predicts, explains, exports or serves takes a bundle and nothing else. Opening a stranger's bundle runs no code.
"""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cxrnet.errors import CxrnetError
from cxrnet.models.network import Network, NetworkConfig

FORMAT = 3  # 1 was before windowed pooling, batch norm in the head and sigmoids, 2 before priors and decision weights
READ = (2, FORMAT)
ROUNDING = 1e-6  # of shares that sum to 1
LATER = ("refer_below", "prior", "decision_weights", "temperature_offset")
"""Fields that a bundle.json may lack: of a policy or a fit, and those that a bundle of format 2 knows nothing of."""


@dataclass(frozen=True)
class Bundle:
    """A trained network and what belongs to it.

    Attributes:
        network: on the CPU, in evaluation mode.
        resize: the rule by which images were brought to ``network.config.size``: ``stretch``, ``pad`` or ``crop``.
        temperature: the logits are divided by it before the softmax; 1 leaves them as they are.
        operating_points: threshold by class (:mod:`cxrnet.evaluation.operating_points`).
        manifest_digest: of the data that it was trained on.
        versions: of the packages that trained it.
        training: the resolved configuration of the run.
        refer_below: calls of a lower certainty (:meth:`cxrnet.evaluation.operating_points.DecisionRule.certainty`) are
            left to a reader; ``None`` where every call stands.
        prior: share of each class that the probabilities are of, that of the training images; ``None`` where it isn't
            known, in bundles of format 2. The network's last bias has it: class weights, a balanced sampler and costs
            are taken out of it (:mod:`cxrnet.models.costs`).
        decision_weights: of the classes, the smallest 1: of those without a threshold, that of the largest weight x
            probability is predicted. ``None`` where the largest probability decides.
        temperature_offset: what was subtracted from the logits of each class before they are divided, (K,), for the
            temperature was fitted with it. It is in the network's last bias already; empty where there is none.
    """

    network: Network
    resize: Literal["stretch", "pad", "crop"]
    temperature: float
    operating_points: dict[str, float]
    manifest_digest: str
    versions: dict[str, str]
    training: dict[str, Any]
    refer_below: float | None = None
    prior: dict[str, float] | None = None
    decision_weights: dict[str, float] | None = None
    temperature_offset: tuple[float, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.network.config.classes


def save_bundle(bundle: Bundle, folder: str | Path) -> None:
    """Write a bundle; the folder appears complete or not at all, and replaces an older one."""
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in bundle.network.state_dict().items()}
    save_file(tensors, partial / "model.safetensors")
    text = json.dumps(_description(bundle), indent=2, ensure_ascii=False)
    (partial / "bundle.json").write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle.

    Raises:
        CxrnetError: the folder is no bundle, is of a newer format, or its files don't fit each other.
    """
    folder = Path(folder)
    for name in ("bundle.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise CxrnetError(f"bundle: '{folder}' has no {name}; give the folder 'bundle' of a finished run")
    try:
        values = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        if values["format"] in READ:
            return _from_description(values, load_file(folder / "model.safetensors"))
    except (
        CxrnetError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise CxrnetError(f"bundle: '{folder}' is damaged ({reason}); copy it again or train anew") from error
    raise CxrnetError(
        f"bundle: '{folder}' has format {values['format']}, this cxrnet reads {FORMAT}; use one that fits"
    )


def _from_description(values: dict[str, Any], tensors: dict[str, Tensor]) -> Bundle:
    network = Network(NetworkConfig.from_dict(values["network"]))
    network.load_state_dict(tensors)
    if values["output"] != network.config.output:
        raise ValueError(f"its output is {values['output']}, its network's {network.config.output}")
    others = {name: values[name] for name in Bundle.__dataclass_fields__ if name not in ("network", *LATER)}
    later: dict[str, Any] = {name: values.get(name) for name in LATER}
    later["temperature_offset"] = _offset(later["temperature_offset"] or (), len(network.config.classes))
    for name in ("prior", "decision_weights"):
        _check_by_class(name, later[name], network.config.classes)
    if later["prior"] is not None and abs(sum(later["prior"].values()) - 1) > ROUNDING:
        raise ValueError(f"its prior sums to {sum(later['prior'].values()):g}")
    return Bundle(network=network.eval().requires_grad_(False), **others, **later)


def _check_by_class(name: str, values: object, classes: Sequence[str]) -> None:
    """See that values are a number above 0 for each class, or none at all."""
    if values is None:
        return
    if not isinstance(values, dict) or set(values) != set(classes):
        raise ValueError(f"its {name} is not of the classes {', '.join(classes)}")
    if not all(type(value) in (int, float) and 0 < value < math.inf for value in values.values()):
        raise ValueError(f"its {name} has a value that is no number above 0")


def _offset(values: Sequence[float], n_classes: int) -> tuple[float, ...]:
    if len(values) not in (0, n_classes) or not all(math.isfinite(value) for value in values):
        raise ValueError(f"its temperature_offset is not a number for each of {n_classes} classes")
    return tuple(values)


def _description(bundle: Bundle) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "network": bundle.network.config.to_dict(),
        "output": bundle.network.config.output,
        "resize": bundle.resize,
        "temperature": bundle.temperature,
        "operating_points": bundle.operating_points,
        "manifest_digest": bundle.manifest_digest,
        "versions": bundle.versions,
        "training": bundle.training,
        **{name: value for name in LATER if (value := getattr(bundle, name)) not in (None, ())},
    }


def device_of(name: str) -> torch.device:
    """``auto`` takes the accelerator where there is one; any other name is taken as torch names devices.

    Raises:
        CxrnetError: torch has no such device here.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise CxrnetError(f"device: '{name}' can't be used here; use auto, cpu, cuda or mps") from error
    return device
