"""The group ``model`` of the configuration, and all that is needed to build a network again. Imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from cxrnet.errors import CxrnetError

Pool = Literal["average", "max", "flatten", "own"]
Activation = Literal["relu", "gelu", "elu", "tanh", "silu"]
Output = Literal["softmax", "sigmoid"]
Dropout = float | tuple[float, ...]
Triple = tuple[float, float, float]
Trainable = str | Mapping[str, str | int | float]  # what a phase trains, see cxrnet.models.freezing


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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` returned; lists become tuples.

        Raises:
            CxrnetError: a name is not known.
        """
        if unknown := set(values) - set(cls.__dataclass_fields__):
            raise CxrnetError(
                f"model: '{min(unknown)}' is not known; a network has {', '.join(cls.__dataclass_fields__)}"
            )
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**given)
