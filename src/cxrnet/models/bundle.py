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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from cxrnet.core.atomic import write_json
from cxrnet.errors import CxrnetError
from cxrnet.models.gate import Gate
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig, is_number, is_share

# 1 was before windowed pooling, batch norm in the head and sigmoids, 2 before priors and decision weights, 3 before
# digests, 4 before ``defer_below``, which was ``refer_below``, 5 before gates.
FORMAT = 6
_READ = (2, 3, 4, 5, FORMAT)
_SIGNED = (4, 5, FORMAT)  # formats with digests
_WEIGHTS, _DESCRIPTION = "model.safetensors", "bundle.json"
# Fields that a bundle.json may lack: of a policy or a fit, and those that a bundle of format 2 knows nothing of.
_LATER = ("defer_below", "prior", "decision_weights", "temperature_offset", "gate")
_GATE = "gate."  # how the names of its tensors begin
# Fields that a bundle.json has besides, from format 4 on: of the file of weights, and of all other fields.
_DIGESTS = ("weights_sha256", "digest")
_ROUNDING = 1e-6  # of shares that sum to 1

_Resize = Literal["stretch", "pad", "crop"]

logger = logging.getLogger("cxrnet")


@dataclass(frozen=True)
class Bundle:
    """A trained network and what belongs to it.

    Attributes:
        network: on the CPU, in evaluation mode.
        resize: the rule by which images were brought to ``network.config.size``.
        temperature: the logits are divided by it before the softmax; 1 leaves them as they are.
        operating_points: threshold by class (:mod:`cxrnet.evaluation.decision`).
        manifest_digest: digest of the data that it was trained on.
        versions: versions of the packages that trained it.
        training: the resolved configuration of the run.
        defer_below: deferral threshold: predictions of a lower certainty
            (:meth:`cxrnet.evaluation.decision.DecisionRule.certainty`) are deferred; ``None`` for none.
        prior: share of each class that the probabilities are of, that of the training images; ``None`` where it isn't
            known, in bundles of format 2. The network's last bias has it: class weights, a balanced sampler and costs
            are taken out of it (:mod:`cxrnet.models.losses`).
        decision_weights: weights of the classes, the smallest 1: of the classes without a threshold, the one of the
            largest weight x probability is predicted. ``None`` where the largest probability decides.
        temperature_offset: what was subtracted from the logits of each class before they are divided, (K,), for the
            temperature was fitted with it. It is in the network's last bias already; empty where there is none.
        gate: tells images that aren't like those of the training; ``None`` where there were too few of these, and in
            bundles of formats before 6.
    """

    network: Network
    resize: _Resize
    temperature: float
    operating_points: dict[str, float]
    manifest_digest: str
    versions: dict[str, str]
    training: dict[str, Any]
    defer_below: float | None = None
    prior: dict[str, float] | None = None
    decision_weights: dict[str, float] | None = None
    temperature_offset: tuple[float, ...] = ()
    gate: Gate | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.network.config.classes


_NEEDED = tuple(name for name in Bundle.__dataclass_fields__ if name not in _LATER)


def save_bundle(bundle: Bundle, folder: str | Path) -> None:
    """Write a bundle; the folder appears complete or not at all, and replaces an older one."""
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in bundle.network.state_dict().items()}
    if bundle.gate is not None:
        tensors |= {_GATE + name: tensor for name, tensor in bundle.gate.tensors.items()}
    save_file(tensors, partial / _WEIGHTS)
    config = bundle.network.config
    values = {"network": config.to_dict(), "output": config.output}
    values |= {name: getattr(bundle, name) for name in _NEEDED if name != "network"}
    later = {name: getattr(bundle, name) for name in _LATER} | {"gate": bundle.gate and bundle.gate.numbers}
    values |= {name: value for name, value in later.items() if value not in (None, ())}
    write_json(partial / _DESCRIPTION, _signed(values, partial / _WEIGHTS))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle and check its digests; warn of an older one, which has none.

    Raises:
        CxrnetError: the folder is no bundle, is of a newer format, was changed, or its files don't fit each other.
    """
    folder = Path(folder)
    values, bundle = _read(folder)
    if values["format"] not in _SIGNED and not set(_DIGESTS) & set(values):
        logger.warning(
            "bundle: '%s' has format %s and no digest, so damage or changes can't be told; python -m cxrnet.sign "
            "bundle=<it> adds one",
            folder,
            values["format"],
        )
        return bundle
    found = {_WEIGHTS: ("weights_sha256", _file_digest(folder / _WEIGHTS)), _DESCRIPTION: ("digest", _digest(values))}
    for file, (name, digest) in found.items():
        if values.get(name) != digest:
            raise CxrnetError(
                f"bundle: '{folder}' is damaged (its {file} is not as it was written); copy it again, or, where it was "
                f"changed on purpose, sign it anew: python -m cxrnet.sign bundle={folder}"
            )
    return bundle


def sign_bundle(folder: str | Path) -> str:
    """Make the digests of a bundle anew, after it was changed on purpose, and return that of the whole.

    Raises:
        CxrnetError: the folder is no bundle, or what it holds is out of its range or doesn't fit.
    """
    folder = Path(folder)
    values = _signed(_renamed(_read(folder)[0]), folder / _WEIGHTS)
    write_json(folder / _DESCRIPTION, values)
    return str(values["digest"])


def _read(folder: Path) -> tuple[dict[str, Any], Bundle]:
    """Read the description of a bundle, as it is in the file, and the bundle; its digests are not checked."""
    for name in (_DESCRIPTION, _WEIGHTS):
        if not (folder / name).is_file():
            raise CxrnetError(f"bundle: '{folder}' has no {name}; give the folder 'bundle' of a finished run")
    try:
        text = (folder / _DESCRIPTION).read_text(encoding="utf-8")
        values = json.loads(text, object_pairs_hook=_each_once)
        if values["format"] in _READ:
            return values, _made(_renamed(values), folder / _WEIGHTS)
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
        f"bundle: '{folder}' has format {values['format']}, this cxrnet reads {_READ[0]} to {FORMAT}; use one that fits"
    )


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON, in which no name may stand twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """Give a description of an older format the present names of its fields, in their order."""
    if values["format"] == FORMAT or "defer_below" in values:
        return values
    return {"defer_below" if name == "refer_below" else name: value for name, value in values.items()}


def _made(values: dict[str, Any], weights: Path) -> Bundle:
    signed = _DIGESTS if values["format"] in _SIGNED else ()
    _check_names("it", values, ("format", "output", *_NEEDED, *signed), (*_LATER, *_DIGESTS))
    if not isinstance(values["network"], dict):
        raise TypeError("its network is no object")
    _check_names("its network", values["network"], NetworkConfig.__dataclass_fields__)
    config = NetworkConfig.from_dict(values["network"])
    if config.mean is None or config.std is None:  # which those of the backbone would stand in for
        raise ValueError("its network has no mean or std")
    _check_values(values, config)
    with safe_open(weights, "pt") as file:
        names = [name for name in file.keys() if not name.startswith(_GATE)]  # noqa: SIM118 (it is no dictionary)
        held = {name: file.get_slice(name).get_shape() for name in names}
    network, tensors = Network(config, held), load_file(weights)
    of_gate = {name.removeprefix(_GATE): tensors.pop(name) for name in list(tensors) if name.startswith(_GATE)}
    network.load_state_dict(tensors)
    others: dict[str, Any] = {name: values[name] for name in _NEEDED if name != "network"}
    others |= {name: values.get(name) for name in _LATER}
    others["temperature_offset"] = tuple(others["temperature_offset"] or ())
    if others["gate"] is not None or of_gate:
        others["gate"] = Gate.read(of_gate, others["gate"] or {}, network.n_features)
    return Bundle(network=network.eval().requires_grad_(False), **others)


def _check_names(
    where: str, values: Mapping[str, Any], needed: Collection[str], optional: Collection[str] = ()
) -> None:
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"{where} has no {missing[0]}")
    if unknown := [name for name in values if name not in (*needed, *optional)]:
        raise ValueError(f"{where} has a field {unknown[0]!r}, which is not known")


def _check_values(values: Mapping[str, Any], config: NetworkConfig) -> None:
    """Refuse a field, but for the network, that is of another type or out of its range."""
    classes, named = config.classes, f"of the classes {', '.join(config.classes)}"

    def is_text(value: object) -> bool:
        return isinstance(value, str)

    def by_class(value: object) -> bool:
        positive = isinstance(value, dict) and all(is_number(each, 0) and each > 0 for each in value.values())
        return value is None or (positive and set(value) == set(classes))  # type: ignore[call-overload]

    def is_prior(value: object) -> bool:
        return by_class(value) and (not value or abs(sum(value.values()) - 1) <= _ROUNDING)  # type: ignore[attr-defined]

    def is_offset(value: object) -> bool:
        listed = isinstance(value, list) and all(map(is_number, value)) and len(value) in (0, len(classes))
        return value is None or listed

    def are_points(value: object) -> bool:
        fits = isinstance(value, dict) and set(value) <= set(classes) and len(value) < len(classes)
        return fits and all(map(is_share, value.values()))  # type: ignore[attr-defined]

    def are_numbers(value: object) -> bool:
        lists = value.values() if isinstance(value, dict) else [None]
        return value is None or all(isinstance(each, list) and all(map(is_number, each)) for each in lists)

    def are_texts(value: object) -> bool:
        return isinstance(value, dict) and all(map(is_text, value.values()))

    rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "output": (f"'{config.output}', as the network", lambda value: value == config.output),
        "resize": (" or ".join(get_args(_Resize)), lambda value: value in get_args(_Resize)),
        "temperature": ("a number above 0", lambda value: is_number(value, 0) and value > 0),
        "operating_points": (f"thresholds from 0 to 1 {named}, of all but one at most", are_points),
        "manifest_digest": ("a text", is_text),
        "versions": ("versions by package", are_texts),
        "training": ("an object", lambda value: isinstance(value, dict)),
        "defer_below": ("null, or a number from 0 to 1", lambda value: value is None or is_share(value)),
        "prior": (f"null, or shares above 0 {named} that sum to 1", is_prior),
        "decision_weights": (f"null, or numbers above 0 {named}", by_class),
        "temperature_offset": (f"a list of {len(classes)} numbers", is_offset),
        "gate": ("null, or an object of lists of numbers", are_numbers),
        "weights_sha256": ("a SHA-256", is_text),
        "digest": ("a SHA-256", is_text),
    }
    for name, (wanted, fits) in rules.items():
        if name in values and not fits(values[name]):
            text = repr(values[name])
            raise ValueError(f"its {name} is {text if len(text) <= 60 else text[:57] + '...'}; it must be {wanted}")


def _signed(values: dict[str, Any], weights: Path) -> dict[str, Any]:
    """Give a description the present format and its digests, as JSON gives it back."""
    others = {name: value for name, value in values.items() if name not in ("format", *_DIGESTS)}
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
