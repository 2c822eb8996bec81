"""The group ``data`` of the configuration: how a data set is read, prepared and drawn from. Imports no torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from cxrnet.core.schema import need

Draw = Literal["shuffle", "balanced"]
ResizeRule = Literal["stretch", "pad", "crop"]
OnError = Literal["fail", "skip"]


@dataclass(frozen=True, kw_only=True)
class DataNumbers:
    """Preparation and drawing of images.

    Attributes:
        size: height and width in pixels.
        resize: stretch, pad (keeps the aspect, black border) or crop (keeps the aspect, middle).
        batch_size: number of images in a batch of each process.
        sampler: shuffle, or balanced (as many draws an epoch, with replacement, each class equally likely).
        num_workers: number of processes that fetch batches of decoded images; they pay where a GPU waits for data.
        on_error: fail or skip: what an unreadable image does.
        seed: seed of the order of the training images.
        limit: number of images of each class in each split, for trying things out; null takes all.
    """

    size: tuple[int, int] = (224, 224)
    resize: ResizeRule = "stretch"
    batch_size: int = 32
    sampler: Draw = "shuffle"
    num_workers: int = 0
    on_error: OnError = "fail"
    seed: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers out of range.

        Raises:
            CxrnetError: one is.
        """
        need(min(self.size) > 0, "data.size", list(self.size), "height and width in pixels, as [224, 224]")
        need(self.batch_size > 0, "data.batch_size", self.batch_size, "a whole number from 1 on")
        need(self.num_workers >= 0, "data.num_workers", self.num_workers, "a whole number from 0 on")
        need(self.limit is None or self.limit > 0, "data.limit", self.limit, "a whole number from 1 on, or null")


@dataclass(frozen=True, kw_only=True)
class Data(DataNumbers):
    """The group ``data``.

    Attributes:
        root: folder or file of the data set; its source reads from there.
        manifest: reads the data set: a function of cxrnet.data.sources and its arguments.
        split: fills the splits: a function of cxrnet.data.splits and its arguments.
        augment: augmentation of training images; the group augment sets it.
        cache: folder of decoded images; null keeps them in memory.
        classes: order of the logits; null is alphabetical.
        known_issues: what is known to be wrong with the data, by source, in sentences; reports state them.
    """

    _target_: str = "cxrnet.data.datamodule.XrayDataModule"
    root: str
    manifest: dict[str, Any]
    split: dict[str, Any]
    augment: Any = None
    cache: str | None = None
    classes: list[Any] | None = None
    known_issues: dict[str, Any] | None = field(default_factory=dict)
