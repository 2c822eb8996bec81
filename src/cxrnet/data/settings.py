"""The group ``data`` of the configuration: how a data set is read, prepared and drawn from. Imports no torch."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from cxrnet.core.schema import need
from cxrnet.errors import CxrnetError

Draw = Literal["shuffle", "balanced"]
ResizeRule = Literal["stretch", "pad", "crop"]
OnError = Literal["fail", "skip"]
LungSource = Literal["auto", "masks", "box"]


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
        window: how many shards the images of a moment come from; null shuffles all images, as of a folder.
        kept_gb: gigabytes of shards on S3 that are kept on this disk at most; null keeps all.
    """

    size: tuple[int, int] = (224, 224)
    resize: ResizeRule = "stretch"
    batch_size: int = 32
    sampler: Draw = "shuffle"
    num_workers: int = 0
    on_error: OnError = "fail"
    seed: int = 0
    limit: int | None = None
    window: int | None = None
    kept_gb: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        need(min(self.size) > 0, "data.size", list(self.size), "height and width in pixels, as [224, 224]")
        need(self.batch_size > 0, "data.batch_size", self.batch_size, "a whole number from 1 on")
        need(self.num_workers >= 0, "data.num_workers", self.num_workers, "a whole number from 0 on")
        for name, value in (("limit", self.limit), ("window", self.window)):
            need(value is None or value > 0, f"data.{name}", value, "a whole number from 1 on, or null")
        need(self.kept_gb is None or self.kept_gb > 0, "data.kept_gb", self.kept_gb, "a number above 0, or null")


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


@dataclass(frozen=True, kw_only=True)
class Fix:
    """The group ``fix`` of ``prepare``: what is to be mended in the manifest (:mod:`cxrnet.data.fixes`).

    Attributes:
        drop_leaked_test: leaves out test images whose patient, or a duplicate, is in train or val.
        regroup: brings all images of a patient, and all duplicates of one another, into train where they lie in several
            splits.
        drop_conflicts: leaves out duplicates that carry different labels.
        drop_decoys: leaves out pictures that are no radiographs, as masks and blank pages.
    """

    drop_leaked_test: bool = False
    regroup: bool = False
    drop_conflicts: bool = False
    drop_decoys: bool = False

    @property
    def asked(self) -> list[str]:
        """The names of those that are asked for."""
        return [name for name, value in vars(self).items() if value]


def check_call(function: Callable[..., Any], key: str, before: int = 0) -> None:
    """Refuse a function of the configuration, usually a partial, that can't be called with the values beside it.

    Args:
        function: the function.
        key: key of the configuration where it stands.
        before: number of arguments that it gets besides, before all others.

    Raises:
        CxrnetError: a value is none of its arguments, or one of them has no value.
    """
    called, given = function, {}
    if isinstance(function, partial):
        called, given, before = function.func, function.keywords, before + len(function.args)
    try:
        parameters = list(inspect.signature(called).parameters.values())[before:]
    except (TypeError, ValueError):  # one that doesn't tell its arguments
        return
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    if not any(each.kind == each.VAR_KEYWORD for each in parameters) and (unknown := sorted(given.keys() - {*names})):
        takes = f"{called.__name__} takes {', '.join(names) or 'none'}"
        raise CxrnetError(f"{key}.{unknown[0]}: no such key; {takes}")
    needed = (each.name for each in parameters if each.name in names and each.default is each.empty)
    if isinstance(function, partial) and (missing := [name for name in needed if name not in given]):
        raise CxrnetError(f"{key}.{missing[0]}: no value is set; give {key}.{missing[0]}=<value>")
