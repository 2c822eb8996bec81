"""External data sets: from their files to images that a bundle can be tested on, none a duplicate of its own.

Public collections took images from each other, so "external" data hold images that a model was trained on.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from hydra.utils import instantiate

from cxrnet.core.config import Config
from cxrnet.core.console import heard
from cxrnet.data.duplicates import SAME_FILE, SEARCH_SIZE, find_duplicates, group_duplicates
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import AtSize, Images
from cxrnet.data.images.store import binary_warning, load_at_sizes, load_images, look_binary
from cxrnet.data.manifest import SPLITS
from cxrnet.data.settings import check_call
from cxrnet.data.shards.reading import root_of
from cxrnet.data.sources.merged import relabel
from cxrnet.errors import CxrnetError

_DATA_KEY = re.compile(r"(?<![\w.])data\.(?=(?:root|manifest|on_error)\b)")  # as the readers of data name it
_PATIENT = ["source", "patient_id"]

logger = logging.getLogger("cxrnet")


@dataclass(frozen=True)
class SetConfig:
    """The configuration of one external data set."""

    name: str  # as the user calls it
    key: str  # of the configuration, below which its data option stands: data or sets.<name>
    data: Config  # its data option, plain
    classes: Mapping[str, str | None]  # class of the bundle by label of the data set; None leaves its images out


@dataclass(frozen=True)
class ExternalSet:
    """A data set and what was done to it."""

    name: str  # as the user calls it
    classes: Sequence[str]  # of the bundle
    manifest: pd.DataFrame  # of the images that are left, all test, labelled in the bundle's classes
    images: Images  # the same images at the size that the bundle wants
    small: Images  # the same images at SEARCH_SIZE
    listed: int  # images in the data set
    renamed: dict[str, str]  # class of the bundle by label, where they differ
    left_out: dict[str, int]  # images without a class of the bundle, by label
    unreadable: int  # images that could not be read
    published: bool  # the published split of the data set was dropped
    known_issues: Mapping[str, Sequence[str]]  # what is documented to be wrong with the data, by source
    notes: Sequence[str]  # warnings of its reading
    # Images that were removed, by the split of the bundle's run that they duplicate; None where that isn't known.
    duplicates: dict[str, int] | None = None
    gap: str = ""  # why it can't be evaluated
    turned_away: int | None = None  # images that the gate of the bundle turned away; None where there was none
    # Pairs of duplicates among the images that are left.
    within: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["image_id_a", "image_id_b", "kind"]))
    same_patients: int = 0  # images left of patients of whom another image was removed as a duplicate
    shared: dict[str, int] = field(default_factory=dict)  # images left with a duplicate in another set, by its name

    @property
    def lacking(self) -> list[str]:
        """The classes of the bundle of which no image is left."""
        return [name for name in self.classes if name not in set(self.manifest["label"])]


def read_set(config: SetConfig, classes: Sequence[str], at: AtSize) -> ExternalSet:
    """Read a data set as a bundle with these classes wants it, at its size and resizing rule."""
    data, labels = config.data, {str(label): target for label, target in config.classes.items()}
    cache = Path(data["cache"]) if data["cache"] else None
    with heard() as notes:
        with _named(config):
            source = instantiate(data["manifest"])
            check_call(source, "data.manifest")
            manifest = source()
        listed, published = len(manifest), bool(manifest["split"].notna().any())
        manifest, left_out = relabel(manifest, classes, labels, f"classes.{config.name}")
        if manifest.empty:
            raise CxrnetError(f"classes.{config.name}: leaves out every image; map a label to a class of the bundle")
        with _named(config):
            read, (images, small) = load_at_sizes(
                manifest.assign(split="test"),
                [at, (SEARCH_SIZE, "stretch")],
                data["on_error"],
                cache,
                data.get("kept_gb"),
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
        raise CxrnetError(f"{config.name}: {_DATA_KEY.sub(lambda _: f'{config.key}.', str(error))}") from error


@dataclass(frozen=True)
class KnownImages:
    """Images whose duplicates are to be found in other data sets."""

    manifest: pd.DataFrame
    readable: pd.DataFrame  # its rows whose file is there; of the others only the same files are found
    images: Images  # those of readable, at SEARCH_SIZE

    @property
    def lost(self) -> int:
        """Number of images whose file isn't there any more."""
        return len(self.manifest) - len(self.readable)


def load_known(manifest: pd.DataFrame, cache: Path | None = None) -> KnownImages:
    """Read the images of a manifest as far as their files are there; ``cache`` is the folder of shards from S3."""
    nothing = Images.all_of(np.empty((0, *SEARCH_SIZE), np.uint8))
    if root_of(manifest["path"]) is not None:
        try:
            _, (images,) = load_at_sizes(manifest, [(SEARCH_SIZE, "stretch")], "fail", cache)
        except CxrnetError as error:
            logger.warning("the images of the bundle's run can't be read: %s", error)
            return KnownImages(manifest, manifest.head(0), nothing)
        return KnownImages(manifest, manifest, images)
    there = manifest["path"].map(lambda path: Path(path).is_file()).to_numpy(bool)
    readable = manifest[there].reset_index(drop=True)
    if readable.empty:
        return KnownImages(manifest, readable, nothing)
    return KnownImages(manifest, *load_images(readable, SEARCH_SIZE, "stretch", "skip"))


def find_overlap(known: KnownImages, sets: Sequence[tuple[pd.DataFrame, Images]]) -> pd.DataFrame:
    """Find the duplicates that data sets share with known images (set 0), with each other, and within themselves.

    Returns:
        One row a pair: ``set_a, image_id_a, set_b, image_id_b, kind`` (as :func:`find_duplicates` names it),
        ``set_a <= set_b``. Pairs within the known images are left out.
    """
    parts = [(known.readable, known.images), *sets]
    rows = pd.concat([manifest for manifest, _ in parts], ignore_index=True)
    place = np.repeat(np.arange(len(parts)), [len(manifest) for manifest, _ in parts])
    # Ids are unique in a set only; numbers are in all of them, and as text of one length they keep their order.
    numbered = rows.assign(image_id=[f"{row:09}" for row in range(len(rows))])
    pairs = find_duplicates(_Chain([images for _, images in parts]), numbered)
    found: dict[str, npt.NDArray[np.generic]] = {}
    for side in "ab":
        numbers = pairs[f"image_id_{side}"].astype(int).to_numpy()
        found |= {f"set_{side}": place[numbers], f"image_id_{side}": rows["image_id"].to_numpy(object)[numbers]}
    table = pd.DataFrame({**found, "kind": pairs["kind"].to_numpy(object)})
    # Known images whose file isn't there any more: those with the same bytes.
    gone = known.manifest[~known.manifest["image_id"].isin(known.readable["image_id"])].dropna(subset="sha256")
    exact = [
        gone.merge(manifest, on="sha256", suffixes=("_a", "_b")).assign(set_a=0, set_b=number, kind=SAME_FILE)
        for number, (manifest, _) in enumerate(sets, start=1)
    ]
    return pd.concat([table[table["set_b"] > 0], *(each[table.columns] for each in exact)], ignore_index=True)


@dataclass(frozen=True)
class _Chain:
    """Images of several sets, one set after the other; they stay where they are."""

    parts: Sequence[Images]

    def __len__(self) -> int:
        return sum(len(images) for images in self.parts)

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> UInt8Array:
        chosen, start = np.empty((len(rows), *SEARCH_SIZE), np.uint8), 0
        for images in self.parts:
            here = (rows >= start) & (rows < start + len(images))
            chosen[here] = images[rows[here] - start]
            start += len(images)
        return chosen


def remove_duplicates(sets: Sequence[ExternalSet], known: KnownImages | None) -> tuple[list[ExternalSet], pd.DataFrame]:
    """Remove duplicates of images of the bundle's run; duplicates within a data set become one cluster.

    Where the images of the run aren't known (``None``), only the data sets are searched.

    Returns:
        The data sets, and what was removed: ``data, image_id, kind, duplicate_of, split`` (of the run).
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
    rest = replace(
        each, manifest=left, images=each.images.take(kept), small=each.small.take(kept), duplicates=duplicates
    )
    if left.empty:
        gap = f"no image is left ({gone.sum()} of {len(gone)} images are duplicates of images of the bundle's run)"
        return replace(rest, gap=gap)
    within = inside[inside["image_id_a"].isin(left["image_id"]) & inside["image_id_b"].isin(left["image_id"])]
    patients = each.manifest[gone].dropna(subset=_PATIENT)[_PATIENT].drop_duplicates()
    same_patients = len(left.dropna(subset=_PATIENT).merge(patients, on=_PATIENT))
    return replace(rest, manifest=group_duplicates(within, left), within=within, same_patients=same_patients)


def without_strange(each: ExternalSet, turned_away: npt.NDArray[np.bool_], said: str) -> ExternalSet:
    """Leave images out that a gate turned away, ``(N,)``; ``said``: what is said of them."""
    kept = ~turned_away
    left = each.manifest[kept].reset_index(drop=True)
    ids, within = left["image_id"], each.within
    within = within[within["image_id_a"].isin(ids) & within["image_id_b"].isin(ids)]
    gap = "" if kept.any() else f"no image is left: of each it {said}; gate=false evaluates them all"
    return replace(
        each,
        manifest=left,
        images=each.images.take(kept),
        small=each.small.take(kept),
        within=within,
        turned_away=int(turned_away.sum()),
        gap=gap,
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
