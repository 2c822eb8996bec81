"""The group ``model`` of the configuration, and all that is needed to build a network again. Imports no torch."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeGuard, get_args

from cxrnet.errors import CxrnetError

Pool = Literal["average", "max", "flatten", "own"]
Activation = Literal["relu", "gelu", "elu", "tanh", "silu"]
Output = Literal["softmax", "sigmoid"]
Dropout = float | tuple[float, ...]
Triple = tuple[float, float, float]
Trainable = str | Mapping[str, str | int | float]  # what a phase trains, see cxrnet.models.freezing

_MOST_PIXELS = 89_000_000  # as of the images that are read (data/images/decode.py)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Backbone and head.

    Attributes:
        backbone: mobilenet_v2, resnet50, vgg16, vgg19, custom_cnn, or timm/<name>, as timm.list_models() has it.
        mean: mean of each channel, of images scaled to 0..1; null takes that of the weights.
        std: standard deviation of each channel, of images scaled to 0..1; null takes that of the weights.
        pool: how the feature map becomes a vector; own is for timm backbones, which take no other.
        pool_window: [height, width] pools in windows of that size, then flattens; null pools the whole map.
        hidden: widths of the dense layers between the features and the logits.
        activation: activation after each hidden layer.
        batch_norm: puts a batch norm before the dropout of every dense layer.
        dropout: rate before every dense layer, 0 to 1; a list has one rate for each, the last included.
        l2: training adds this times the sum of squares of the hidden layers' weights to the loss.
        output: softmax, or sigmoid (two classes: one logit, that of the last in data.classes).
    """

    backbone: str
    mean: Triple | None = None
    std: Triple | None = None
    pool: Pool = "average"
    pool_window: tuple[int, int] | None = None
    hidden: tuple[int, ...] = ()
    activation: Activation = "relu"
    batch_norm: bool = False
    dropout: Dropout = 0.2
    l2: float = 0.0
    output: Output = "softmax"


@dataclass(frozen=True, kw_only=True)
class Model(Architecture):
    """The group ``model``.

    Attributes:
        weights: auto, imagenet, none, or a .safetensors file or weights-only checkpoint.
    """

    weights: str = "auto"


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Architecture):
    """A network for given classes and images; plain values, stored in the bundle.

    Attributes:
        classes: class names in the order of the logits.
        size: height and width of the input in pixels.
    """

    classes: tuple[str, ...]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse what is no network, whatever its backbone.

        Raises:
            CxrnetError: a value is of another type or out of its range.
        """
        names, hidden, rates = self.classes, self.hidden, self.dropout
        triples = [each for each in (self.mean, self.std) if each is not None]
        self._need(_all(names, is_name) and len(set(names)) == len(names) > 1, "classes", "two or more, each once")
        fits = _all(self.size, is_count, 2) and math.prod(self.size) <= _MOST_PIXELS
        self._need(fits, "size", "a height and a width in pixels")
        self._need(isinstance(self.backbone, str), "backbone", "a name")
        fits = all(_all(each, is_number, 3) for each in triples) and min(self.std or (1,)) > 0
        self._need(fits, "mean, model.std", "three numbers each, std above 0")
        if self.pool not in get_args(Pool):
            raise CxrnetError(
                f"model.pool: '{self.pool}' is not known; choose average, max or flatten (own: of timm backbones)"
            )
        fits = self.pool_window is None or _all(self.pool_window, is_count, 2)
        self._need(fits, "pool_window", "the window's height and width, as [4, 4], or null")
        if self.pool_window is not None and self.pool in ("flatten", "own"):
            raise CxrnetError(
                f"model.pool_window: pool '{self.pool}' has no windows; give null, or pool average or max"
            )
        self._need(_all(hidden, is_count), "hidden", "a list of widths, as [256], or []")
        for name, choices in (("activation", get_args(Activation)), ("output", get_args(Output))):
            if getattr(self, name) not in choices:
                raise CxrnetError(
                    f"model.{name}: '{getattr(self, name)}' is not known; choose one of {', '.join(choices)}"
                )
        self._need(isinstance(self.batch_norm, bool), "batch_norm", "true or false")
        fits = is_share(rates) or _all(rates, is_share)
        self._need(fits, "dropout", "a probability from 0 to 1, or a list of them")
        self._need(is_number(self.l2, 0), "l2", "a number from 0 on")
        if isinstance(rates, tuple) and len(rates) != len(hidden) + 1:
            raise CxrnetError(
                f"model.dropout: {len(rates)} rates for {len(hidden) + 1} dense layers; give one for each layer of "
                "model.hidden and one for the last, or a single number"
            )
        if self.output == "sigmoid" and len(names) != 2:
            raise CxrnetError(
                f"model.output: sigmoid tells two classes apart, the data have {len(names)}; give softmax"
            )

    def _need(self, fits: bool, name: str, wanted: str) -> None:
        if not fits:
            group = "data" if name in ("classes", "size") else "model"
            values = ", ".join(f"{getattr(self, key)!s:.60}" for key in name.split(", model."))
            raise CxrnetError(f"{group}.{name}: {values}; give {wanted}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` returned; lists become tuples.

        Raises:
            CxrnetError: a name is not known, or a value is none.
        """
        if unknown := set(values) - set(cls.__dataclass_fields__):
            raise CxrnetError(
                f"model: '{min(unknown)}' is not known; a network has {', '.join(cls.__dataclass_fields__)}"
            )
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**given)


def is_number(value: object, low: float = -sys.float_info.max, high: float = sys.float_info.max) -> TypeGuard[float]:
    """Tell a finite number, and no truth value, in a range; a whole number may have any number of digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_share(value: object) -> TypeGuard[float]:
    """Tell a number from 0 to 1."""
    return is_number(value, 0, 1)


def is_count(value: object) -> TypeGuard[int]:
    """Tell a whole number from 1 on that torch can count to."""
    return isinstance(value, int) and is_number(value, 1, 2**31 - 1)


def is_name(value: object) -> TypeGuard[str]:
    """Tell a text that can be written to a file."""
    return isinstance(value, str) and value != "" and value.encode(errors="ignore").decode() == value


def _all(values: object, fits: Callable[[object], bool], length: int | None = None) -> bool:
    if isinstance(values, str) or not isinstance(values, Sequence):
        return False
    return len(values) == (length or len(values)) and all(map(fits, values))
