"""The schema of ``bundle.json``: its fields, with the type and the range of each."""

import math
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_args

from cxrnet.models.settings import NetworkConfig, Output

RESIZE = ("stretch", "pad", "crop")
ROUNDING = 1e-6  # of shares that sum to 1
_MOST_PIXELS = 89_000_000  # as of the images that are read (data/images/decode.py)


def check_description(values: Mapping[str, Any], fields: Collection[str], optional: Collection[str]) -> None:
    """Check the description of a bundle by itself, without its weights.

    Args:
        values: as parsed of JSON.
        fields: required ones.
        optional: further ones that are allowed.

    Raises:
        ValueError: a field is missing, unknown, of another type or out of its range; in words that follow the bundle.
    """
    _check_names(values, fields, optional, "it")
    network = values["network"]
    _require(isinstance(network, dict), "network", network, "an object")
    _check_names(network, NetworkConfig.__dataclass_fields__, (), "its network")
    _check_network(network)
    classes = network["classes"]
    _require(
        values["output"] == network["output"], "output", values["output"], f"'{network['output']}', as the network"
    )
    for name, (wanted, fits) in _RULES.items():
        if name in values:
            _require(fits(values[name]), name, values[name], wanted)
    points = values["operating_points"]
    _require(set(points) <= set(classes), "operating_points", points, f"of the classes {', '.join(classes)}")
    _require(not points or len(points) < len(classes), "operating_points", points, "of all classes but one at most")
    for name in ("prior", "decision_weights"):
        if values.get(name) is not None:
            _check_by_class(name, values[name], classes)
    offset = values.get("temperature_offset") or []
    _require(len(offset) in (0, len(classes)), "temperature_offset", offset, f"of {len(classes)} numbers")


def _check_names(values: Mapping[str, Any], fields: Collection[str], optional: Collection[str], where: str) -> None:
    if missing := [name for name in fields if name not in values]:
        raise ValueError(f"{where} has no {missing[0]}")
    if unknown := [name for name in values if name not in (*fields, *optional)]:
        raise ValueError(f"{where} has a field {unknown[0]!r}, which is not known")


def _check_network(network: Mapping[str, Any]) -> None:
    classes, size, window = network["classes"], network["size"], network["pool_window"]
    _require(
        _all(classes, _is_name) and len(set(classes)) == len(classes) > 1,
        "classes", classes, "a list of two or more names, each once",
    )  # fmt: skip
    _require(_whole(size, 2) and math.prod(size) <= _MOST_PIXELS, "size", size, "a height and a width in pixels")
    _require(window is None or _whole(window, 2), "pool_window", window, "null, or a height and a width")
    _require(_all(network["hidden"], _count), "hidden", network["hidden"], "a list of widths")
    _require(_all(network["mean"], _finite, 3), "mean", network["mean"], "three finite numbers")
    _require(_all(network["std"], _positive, 3), "std", network["std"], "three numbers above 0")
    _require(_finite(network["l2"]) and network["l2"] >= 0, "l2", network["l2"], "a number from 0 on")
    rates = network["dropout"]
    _require(_share(rates) or _all(rates, _share), "dropout", rates, "a number from 0 to 1, or a list of them")
    _require(isinstance(network["batch_norm"], bool), "batch_norm", network["batch_norm"], "true or false")
    _require(network["output"] in get_args(Output), "output", network["output"], " or ".join(get_args(Output)))
    for name in ("backbone", "pool", "activation"):
        _require(isinstance(network[name], str), name, network[name], "a name")


def _check_by_class(name: str, values: object, classes: Collection[str]) -> None:
    if not isinstance(values, dict) or set(values) != set(classes):
        raise ValueError(f"its {name} is not of the classes {', '.join(classes)}")
    if not all(map(_positive, values.values())):
        raise ValueError(f"its {name} has a value that is no number above 0")
    if name == "prior" and abs(sum(values.values()) - 1) > ROUNDING:
        raise ValueError(f"its prior sums to {sum(values.values()):g}")


def _require(fits: bool, name: str, value: object, wanted: str) -> None:
    if not fits:
        text = repr(value)
        raise ValueError(f"its {name} is {text if len(text) <= 60 else text[:57] + '...'}; it must be {wanted}")


def _finite(value: object) -> bool:
    # A whole number in JSON may have any number of digits.
    most = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most


def _positive(value: object) -> bool:
    return _finite(value) and value > 0  # type: ignore[operator]


def _share(value: object) -> bool:
    return _finite(value) and 0 <= value <= 1  # type: ignore[operator]


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def _all(values: object, fits: Callable[[object], bool], length: int | None = None) -> bool:
    return isinstance(values, list) and len(values) == (length or len(values)) and all(map(fits, values))


def _whole(values: object, length: int) -> bool:
    return _all(values, _count, length)


def _is_name(value: object) -> bool:
    """Tell whether a value is a text that can be written to a file."""
    return isinstance(value, str) and value != "" and value.encode(errors="ignore").decode() == value


def _texts(values: object) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "resize": (" or ".join(RESIZE), lambda value: isinstance(value, str) and value in RESIZE),
    "temperature": ("a number above 0", _positive),
    "operating_points": (
        "thresholds from 0 to 1 by class",
        lambda value: isinstance(value, dict) and all(map(_share, value.values())),
    ),
    "manifest_digest": ("a text", lambda value: isinstance(value, str)),
    "versions": ("versions by package", _texts),
    "training": ("an object", lambda value: isinstance(value, dict)),
    "defer_below": ("null, or a number from 0 to 1", lambda value: value is None or _share(value)),
    "temperature_offset": ("a list of numbers", lambda value: value is None or _all(value, _finite)),
    "weights_sha256": ("a SHA-256", lambda value: isinstance(value, str)),
    "digest": ("a SHA-256", lambda value: isinstance(value, str)),
}
