"""External data sets: from their files to images that a bundle can be tested on, none a duplicate of its own."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from hydra.utils import instantiate

from cxrnet.core.config import Config
from cxrnet.core.console import heard
from cxrnet.data.duplicates.overlap import KnownImages, find_overlap
from cxrnet.data.duplicates.search import SEARCH_SIZE, group_duplicates
from cxrnet.data.images.reader import AtSize, binary_warning, look_binary
from cxrnet.data.images.resize import Images
from cxrnet.data.images.store import load_at_sizes
from cxrnet.data.manifest import SPLITS
from cxrnet.data.sources.merged import relabel
from cxrnet.errors import CxrnetError

DATA_KEY = re.compile(r"(?<![\w.])data\.(?=(?:root|manifest|on_error)\b)")  # as the readers of data name it
PATIENT = ["source", "patient_id"]


@dataclass(frozen=True)
class SetConfig:
    """The configuration of one external data set.

    Attributes:
        name: as the user calls it.
        key: of the configuration, below which its data option stands: ``data`` or ``sets.<name>``.
        data: its data option, plain.
        classes: class of the bundle by label of the data set (:func:`cxrnet.data.sources.merged.relabel`).
    """

    name: str
    key: str
    data: Config
    classes: Mapping[str, str | None]


@dataclass(frozen=True)
class ExternalSet:
    """A data set and what was done to it.

    Attributes:
        name: as the user calls it.
        classes: of the bundle.
        manifest: of the images that are left, all ``test``, labelled in the bundle's classes.
        images: the same images at the size that the bundle wants.
        small: the same images at ``SEARCH_SIZE``.
        listed: number of images in the data set.
        renamed: class of the bundle by label, where they differ.
        left_out: number of images without a class of the bundle, by label.
        unreadable: number of images that could not be read.
        published: the published split of the data set was dropped.
        known_issues: what is documented to be wrong with the data, by source.
        notes: warnings of its reading.
        duplicates: number of images that were removed, by the split of the bundle's run that they duplicate; ``None``
            where the images of the run aren't known.
        gap: why it can't be evaluated; empty if it can.
        within: pairs of duplicates among the images that are left.
        same_patients: number of images left of patients of whom another image was removed as a duplicate.
        shared: number of images left with a duplicate in another external data set, by its name.
    """

    name: str
    classes: Sequence[str]
    manifest: pd.DataFrame
    images: Images
    small: Images
    listed: int
    renamed: dict[str, str]
    left_out: dict[str, int]
    unreadable: int
    published: bool
    known_issues: Mapping[str, Sequence[str]]
    notes: Sequence[str]
    duplicates: dict[str, int] | None = None
    gap: str = ""
    within: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["image_id_a", "image_id_b"]))
    same_patients: int = 0
    shared: dict[str, int] = field(default_factory=dict)

    @property
    def lacking(self) -> list[str]:
        """The classes of the bundle of which no image is left."""
        return [name for name in self.classes if name not in set(self.manifest["label"])]


def read_set(config: SetConfig, classes: Sequence[str], at: AtSize) -> ExternalSet:
    """Read a data set as a bundle wants it.

    Args:
        config: of the data set.
        classes: of the bundle.
        at: size and resizing rule of the bundle's images.

    Raises:
        CxrnetError: the data set isn't there or not usable, or a label has no class.
    """
    data, labels = config.data, {str(label): target for label, target in config.classes.items()}
    cache = Path(data["cache"]) if data["cache"] else None
    with heard() as notes:
        with _named(config):
            manifest = instantiate(data["manifest"])()
        listed, published = len(manifest), bool(manifest["split"].notna().any())
        manifest, left_out = relabel(manifest, classes, labels, f"classes.{config.name}")
        if manifest.empty:
            raise CxrnetError(f"classes.{config.name}: leaves out every image; map a label to a class of the bundle")
        with _named(config):
            read, (images, small) = load_at_sizes(
                manifest.assign(split="test"), [at, (SEARCH_SIZE, "stretch")], data["on_error"], cache
            )
    return ExternalSet(
        name=config.name,
        classes=classes,
        manifest=read.assign(split=read["split"].astype("string")),
        images=images,
        small=small,
        listed=listed,
        renamed={label: target for label, target in labels.items() if target not in (None, label)},
        left_out=left_out,
        unreadable=len(manifest) - len(read),
        published=published,
        known_issues=data["known_issues"],
        notes=[*notes, *binary_warning(read["image_id"][look_binary(small[:])].tolist(), len(read))],
    )


@contextmanager
def _named(config: SetConfig) -> Iterator[None]:
    """Put the name and the key of the data set into error messages; its readers know neither."""
    try:
        yield
    except CxrnetError as error:
        raise CxrnetError(f"{config.name}: {DATA_KEY.sub(lambda _: f'{config.key}.', str(error))}") from error


def remove_duplicates(sets: Sequence[ExternalSet], known: KnownImages | None) -> tuple[list[ExternalSet], pd.DataFrame]:
    """Remove duplicates of images of the bundle's run; duplicates within a data set become one cluster.

    Args:
        sets: the data sets.
        known: the images of the run; ``None`` where they aren't known, then only the data sets are searched.

    Returns:
        The data sets, and what was removed: ``data, image_id, kind, duplicate_of, split`` (of the run).

    Raises:
        CxrnetError: no data set has an image left.
    """
    if known is None:
        nothing = sets[0].manifest.head(0)
        searched = KnownImages(nothing, nothing, sets[0].small.take(np.arange(0)))
    else:
        searched = known
    pairs = find_overlap(searched, [(each.manifest, each.small) for each in sets])
    splits = searched.manifest.set_index("image_id")["split"]
    left, removed = [], []
    for number, each in enumerate(sets, start=1):
        taken = pairs[(pairs["set_a"] == 0) & (pairs["set_b"] == number)]
        taken = taken.assign(data=each.name, split=splits.reindex(taken["image_id_a"]).to_numpy(object))
        inside = pairs[(pairs["set_a"] == number) & (pairs["set_b"] == number)]
        left.append(_without(each, taken, inside))
        removed.append(taken)
    if all(each.gap for each in left):
        raise CxrnetError(f"{'; '.join(f'{each.name}: {each.gap}' for each in left)}; give data with other images")
    left = left if known is not None else [replace(each, duplicates=None) for each in left]
    columns = {"image_id_b": "image_id", "image_id_a": "duplicate_of"}
    table = pd.concat(removed, ignore_index=True).rename(columns=columns)
    return (
        [replace(each, shared=_shared(left, pairs, number)) for number, each in enumerate(left, start=1)],
        table[["data", "image_id", "kind", "duplicate_of", "split"]],
    )


def _without(each: ExternalSet, taken: pd.DataFrame, inside: pd.DataFrame) -> ExternalSet:
    """Remove images; group the duplicates among those that are left, and count those of the same patients."""
    order = {split: place for place, split in enumerate(SPLITS)}
    first = taken.sort_values("split", key=lambda split: split.map(order)).drop_duplicates("image_id_b")
    duplicates = {split: count for split in SPLITS if (count := int((first["split"] == split).sum()))}
    gone = each.manifest["image_id"].isin(first["image_id_b"])
    kept = ~gone.to_numpy(bool)
    left = each.manifest[kept].reset_index(drop=True)
    images, small = each.images.take(kept), each.small.take(kept)
    if left.empty:
        gap = f"no image is left ({gone.sum()} of {len(gone)} images are duplicates of images of the bundle's run)"
        return replace(each, manifest=left, images=images, small=small, duplicates=duplicates, gap=gap)
    within = inside[inside["image_id_a"].isin(left["image_id"]) & inside["image_id_b"].isin(left["image_id"])]
    patients = each.manifest[gone].dropna(subset=PATIENT)[PATIENT].drop_duplicates()
    return replace(
        each,
        manifest=group_duplicates(within, left),
        images=images,
        small=small,
        duplicates=duplicates,
        within=within,
        same_patients=len(left.dropna(subset=PATIENT).merge(patients, on=PATIENT)),
    )


def _shared(sets: Sequence[ExternalSet], pairs: pd.DataFrame, number: int) -> dict[str, int]:
    """Count the images left in one data set that have a duplicate left in another one, by its name."""
    ids, shared = sets[number - 1].manifest["image_id"], {}
    for other, rest in enumerate(sets, start=1):
        a, b = ("a", "b") if number < other else ("b", "a")
        both = pairs[(pairs[f"set_{a}"] == number) & (pairs[f"set_{b}"] == other)]
        both = both[both[f"image_id_{b}"].isin(rest.manifest["image_id"])]
        if number != other and (count := int(ids.isin(both[f"image_id_{a}"]).sum())):
            shared[rest.name] = count
    return shared
