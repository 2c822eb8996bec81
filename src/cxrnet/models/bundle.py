"""The bundle: one trained model in a folder, complete and without pickle.

``model.safetensors`` holds the tensors, ``bundle.json`` everything else that a prediction depends on. Whatever
predicts, explains, exports or serves takes a bundle and nothing else. Opening a stranger's bundle runs no code.

A bundle knows its content: ``bundle.json`` has the SHA-256 of the weights, and one of all that it says itself. They
tell damage, and changes that nobody meant to make. They don't tell forgery, as whoever changes a bundle on purpose can
make them anew (:func:`sign_bundle`, ``python -m cxrnet.sign``); for that, compare the digest with one that its maker
passed on in another way.
"""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cxrnet.core.atomic import write_json
from cxrnet.errors import CxrnetError
from cxrnet.models.bundle_schema import check_description
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig

# 1 was before windowed pooling, batch norm in the head and sigmoids, 2 before priors and decision weights, 3 before
# digests, 4 before ``defer_below``, which was ``refer_below``.
FORMAT = 5
READ = (2, 3, 4, FORMAT)
SIGNED = (4, FORMAT)  # formats with digests
WEIGHTS, DESCRIPTION = "model.safetensors", "bundle.json"
LATER = ("defer_below", "prior", "decision_weights", "temperature_offset")
"""Fields that a bundle.json may lack: of a policy or a fit, and those that a bundle of format 2 knows nothing of."""
DIGESTS = ("weights_sha256", "digest")
"""Fields that a bundle.json has besides, from format 4 on: of the file of weights, and of all other fields."""

logger = logging.getLogger("cxrnet")


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
        defer_below: deferral threshold: predictions of a lower certainty
            (:meth:`cxrnet.evaluation.operating_points.DecisionRule.certainty`) are deferred; ``None`` for none.
        prior: share of each class that the probabilities are of, that of the training images; ``None`` where it isn't
            known, in bundles of format 2. The network's last bias has it: class weights, a balanced sampler and costs
            are taken out of it (:mod:`cxrnet.models.losses`).
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
    defer_below: float | None = None
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
    save_file(tensors, partial / WEIGHTS)
    write_json(partial / DESCRIPTION, _signed(_description(bundle), partial / WEIGHTS))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle and check its digests; warn of an older one, which has none.

    Raises:
        CxrnetError: the folder is no bundle, is of a newer format, was changed, or its files don't fit each other.
    """
    folder = Path(folder)
    values, bundle = _read(folder)
    if values["format"] not in SIGNED and not set(DIGESTS) & set(values):
        logger.warning(
            "bundle: '%s' has format %s and no digest, so damage or changes can't be told; python -m cxrnet.sign "
            "bundle=<it> adds one",
            folder,
            values["format"],
        )
    elif values.get("weights_sha256") != _file_digest(folder / WEIGHTS):
        raise _changed(folder, WEIGHTS)
    elif values.get("digest") != _digest(values):
        raise _changed(folder, DESCRIPTION)
    return bundle


def sign_bundle(folder: str | Path) -> str:
    """Make the digests of a bundle anew, after it was changed on purpose, and return that of the whole.

    Raises:
        CxrnetError: the folder is no bundle, or what it holds is out of its range or doesn't fit.
    """
    folder = Path(folder)
    values = _signed(_renamed(_read(folder)[0]), folder / WEIGHTS)
    write_json(folder / DESCRIPTION, values)
    return str(values["digest"])


def _read(folder: Path) -> tuple[dict[str, Any], Bundle]:
    """Read the description of a bundle, as it is in the file, and the bundle; its digests are not checked."""
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise CxrnetError(f"bundle: '{folder}' has no {name}; give the folder 'bundle' of a finished run")
    try:
        text = (folder / DESCRIPTION).read_text(encoding="utf-8")
        values = json.loads(text, object_pairs_hook=_each_once)
        if values["format"] in READ:
            return values, _from_description(_renamed(values), load_file(folder / WEIGHTS))
    except (
        CxrnetError,
        ArithmeticError,
        AttributeError,
        KeyError,
        OSError,
        TypeError,
        ValueError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CxrnetError(f"bundle: '{folder}' is damaged ({reason}); copy it again or train anew") from error
    raise CxrnetError(
        f"bundle: '{folder}' has format {values['format']}, this cxrnet reads {READ[0]} to {FORMAT}; use one that fits"
    )


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """Give a description of an older format the present names of its fields, in their order."""
    if values["format"] == FORMAT or "defer_below" in values:
        return values
    return {"defer_below" if name == "refer_below" else name: value for name, value in values.items()}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON, in which no name may stand twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def _changed(folder: Path, name: str) -> CxrnetError:
    return CxrnetError(
        f"bundle: '{folder}' is damaged (its {name} is not as it was written); copy it again, or, where it was changed "
        f"on purpose, sign it anew: python -m cxrnet.sign bundle={folder}"
    )


def _from_description(values: dict[str, Any], tensors: dict[str, Tensor]) -> Bundle:
    needed = [name for name in Bundle.__dataclass_fields__ if name not in LATER]
    signed = DIGESTS if values["format"] in SIGNED else ()
    check_description(values, ("format", "output", *needed, *signed), (*LATER, *DIGESTS))
    network = Network(NetworkConfig.from_dict(values["network"]))
    network.load_state_dict(tensors)
    others = {name: values[name] for name in needed if name != "network"}
    later: dict[str, Any] = {name: values.get(name) for name in LATER}
    later["temperature_offset"] = tuple(later["temperature_offset"] or ())
    return Bundle(network=network.eval().requires_grad_(False), **others, **later)


def _description(bundle: Bundle) -> dict[str, Any]:
    return {
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


def _signed(values: dict[str, Any], weights: Path) -> dict[str, Any]:
    """Give a description the present format and its digests, as JSON gives it back."""
    others = {name: value for name, value in values.items() if name not in ("format", *DIGESTS)}
    description = {"format": FORMAT, **json.loads(json.dumps(others)), "weights_sha256": _file_digest(weights)}
    return {**description, "digest": _digest(description)}


def _digest(values: dict[str, Any]) -> str:
    """Compute the SHA-256 of all fields but the digest, in their order: the first of several thresholds decides."""
    text = json.dumps({name: value for name, value in values.items() if name != "digest"}, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def device_of(name: str) -> torch.device:
    """Return a device by its name in torch; ``auto`` takes the accelerator where there is one.

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
