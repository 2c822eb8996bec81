"""External data sets: from their files to the images that a bundle can be tested on."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

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
from cxrnet.data.leaks import conflict_statement, patients_text
from cxrnet.data.manifest import SPLITS, digest
from cxrnet.data.sources.merged import relabel
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.prior import Mix, threshold_sentence
from cxrnet.models.bundle import Bundle
from cxrnet.reporting.training_run import issues_of
from cxrnet.workflows.bundle_origin import Origin

Value = TypeVar("Value")
KEY = re.compile(r"(?<![\w.])data\.(?=(?:root|manifest|on_error)\b)")  # as who reads data names it


@dataclass(frozen=True)
class ExternalSet:
    """A data set and what was done to it.

    Attributes:
        name: as the user calls it.
        manifest: of the images that are left, all ``test``, labelled in the bundle's classes.
        images: of these, as the bundle wants them.
        small: of these, at ``SEARCH_SIZE``.
        listed: images in the data set.
        renamed: class of the bundle by label, where they differ.
        left_out: images without a class of the bundle, by label.
        unreadable: images that could not be read.
        published: the split of the data set was dropped.
        copies: images that were taken out, by the split of the bundle's run that they are copies of; ``None`` where
            the images of the run aren't known.
        gap: why it can't be evaluated, empty if it can.
        shared: images that have copies in another external data set, by its name.
        same_patients: images, of those that are left, of patients of whom the bundle's run has images.
        same_numbers: other images whose source and patient number images of the run bear too.
        known_issues: what is documented to be wrong with the data, by source.
        within: pairs of copies among the images that are left.
        notes: what was said while it was read, such as what is left out.
    """

    name: str
    manifest: pd.DataFrame
    images: Images
    small: Images
    listed: int
    renamed: dict[str, str]
    left_out: dict[str, int]
    unreadable: int
    published: bool
    copies: dict[str, int] | None = None
    gap: str = ""
    shared: dict[str, int] = field(default_factory=dict)
    same_patients: int = 0
    same_numbers: int = 0
    known_issues: Mapping[str, Sequence[str]] = field(default_factory=dict)
    within: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["image_id_a", "image_id_b"]))
    notes: Sequence[str] = ()

    def where(self, kept: pd.Series) -> "ExternalSet":
        """The same with a part of its images."""
        rows = kept.to_numpy(bool)
        manifest = self.manifest[rows].reset_index(drop=True)
        return replace(self, manifest=manifest, images=self.images.take(rows), small=self.small.take(rows))


def read_set(name: str, key: str, config: Config, labels: Mapping[object, str | None], bundle: Bundle) -> ExternalSet:
    """Read a data set as a bundle wants it.

    Args:
        name: of the data set.
        key: of the configuration, below which its option stands: ``data``, or ``sets.<name>``.
        config: its data option.
        labels: class of the bundle by label of the data set, see :func:`cxrnet.data.sources.merged.relabel`.
        bundle: says the classes, and how images are prepared.

    Raises:
        CxrnetError: the data set isn't there or not usable, or a label has no class.
    """
    cache = Path(config["cache"]) if config["cache"] else None
    sizes: list[AtSize] = [(bundle.network.config.size, bundle.resize), (SEARCH_SIZE, "stretch")]
    classes = {str(label): target for label, target in labels.items()}
    renamed = {label: target for label, target in classes.items() if target not in (None, label)}
    with heard() as notes:
        manifest = _called(name, key, instantiate(config["manifest"]))
        listed, published = len(manifest), bool(manifest["split"].notna().any())
        manifest, left_out = relabel(manifest, bundle.classes, classes, f"classes.{name}")
        if manifest.empty:
            raise CxrnetError(f"classes.{name}: leaves out every image; map a label to a class of the bundle")
        read, (images, small) = _called(
            name, key, lambda: load_at_sizes(manifest.assign(split="test"), sizes, config["on_error"], cache)
        )
    read["split"] = read["split"].astype("string")
    notes += binary_warning(read["image_id"][look_binary(small[:])].tolist(), len(read))
    unreadable, faults = len(manifest) - len(read), config["known_issues"]
    return ExternalSet(
        name,
        read,
        images,
        small,
        listed,
        renamed,
        left_out,
        unreadable,
        published,
        known_issues=faults,
        notes=notes,
    )


def _called(name: str, key: str, read: Callable[[], Value]) -> Value:
    """Read something; who reads doesn't know how the data set, and where its option stands, are called here."""
    try:
        return read()
    except CxrnetError as error:
        raise CxrnetError(f"{name}: {KEY.sub(lambda _: f'{key}.', str(error))}") from error


def take_out_copies(sets: Sequence[ExternalSet], known: KnownImages | None) -> tuple[list[ExternalSet], pd.DataFrame]:
    """Take out what copies an image of the bundle's run; what is copied within a data set becomes one group.

    Args:
        sets: the data sets.
        known: the images of the run; ``None`` where they aren't known, then nothing is looked for there.

    Returns:
        The data sets, and the copies: ``data, image_id, kind, copy_of, split`` (of the run).

    Raises:
        CxrnetError: of no data set an image is left.
    """
    searched = known is not None
    if known is None:
        nothing = sets[0].manifest.head(0)
        known = KnownImages(nothing, nothing, sets[0].small.take(np.arange(0)))
    pairs = find_overlap(known, [(each.manifest, each.small) for each in sets])
    splits = known.manifest.set_index("image_id")["split"]
    left, found = [], []
    for number, each in enumerate(sets, start=1):
        taken = pairs[(pairs["set_a"] == 0) & (pairs["set_b"] == number)]
        taken = taken.assign(split=splits.reindex(taken["image_id_a"]).to_numpy(object))
        found.append(taken.assign(data=each.name))
        rest = _without(each, taken, pairs[(pairs["set_a"] == number) & (pairs["set_b"] == number)])
        left.append(_with_patients(rest, each.manifest, known.manifest, taken))
    if all(each.gap for each in left):
        told = "; ".join(f"{each.name}: {each.gap}" for each in left)
        raise CxrnetError(f"{told}; give data with other images")
    columns = {"data": "data", "image_id_b": "image_id", "kind": "kind", "image_id_a": "copy_of", "split": "split"}
    table = pd.concat(found, ignore_index=True).rename(columns=columns)[list(columns.values())]
    left = left if searched else [replace(each, copies=None) for each in left]
    return [_with_shared(each, left, pairs, number) for number, each in enumerate(left, start=1)], table


def _without(each: ExternalSet, taken: pd.DataFrame, within: pd.DataFrame) -> ExternalSet:
    """Take out images; group the copies among those that are left."""
    order = {split: place for place, split in enumerate(SPLITS)}
    first = taken.sort_values("split", key=lambda split: split.map(order)).drop_duplicates("image_id_b")
    copies = {split: count for split in SPLITS if (count := int((first["split"] == split).sum()))}
    rest = each.where(~each.manifest["image_id"].isin(first["image_id_b"]))
    if rest.manifest.empty:
        taken_out = f"{len(first)} of {len(each.manifest)} images are copies of images of the bundle's run"
        return replace(rest, copies=copies, gap=f"no image is left ({taken_out})")
    ids = rest.manifest["image_id"]
    inside = within[within["image_id_a"].isin(ids) & within["image_id_b"].isin(ids)]
    return replace(rest, manifest=group_duplicates(inside, rest.manifest), copies=copies, within=inside)


def _with_patients(rest: ExternalSet, whole: pd.DataFrame, known: pd.DataFrame, taken: pd.DataFrame) -> ExternalSet:
    """Count the images that are left of patients of the bundle's run.

    A number alone is no patient: other data may count theirs from 1 too, under the same name of a source. A patient is
    the same where one of their images is in both, and where the numbers of a source are known to mean the same, for
    images that are in both bear the same ones.
    """
    keys = ["source", "patient_id"]
    ours = known.set_index("image_id").loc[taken["image_id_a"], keys].astype(object).fillna("").reset_index(drop=True)
    theirs = whole.set_index("image_id").loc[taken["image_id_b"], keys].astype(object).fillna("").reset_index(drop=True)
    theirs, ours = theirs[theirs["patient_id"] != ""], ours[theirs["patient_id"] != ""]
    agreed = set(theirs.loc[(ours == theirs).all(axis=1), "source"])
    seen, numbers = (
        set(map(tuple, theirs.to_numpy())),
        set(map(tuple, known.dropna(subset=keys)[keys].to_numpy(object))),
    )
    left = [tuple(row) for row in rest.manifest.dropna(subset=keys)[keys].to_numpy(object)]
    same = [row in seen or (row in numbers and row[0] in agreed) for row in left]
    alike = [row in numbers and not is_same for row, is_same in zip(left, same, strict=True)]
    return replace(rest, same_patients=sum(same), same_numbers=sum(alike))


def _with_shared(each: ExternalSet, sets: Sequence[ExternalSet], pairs: pd.DataFrame, number: int) -> ExternalSet:
    """Count the images that are left and have copies left in another data set."""
    shared = {}
    for other, rest in enumerate(sets, start=1):
        a, b = ("a", "b") if number < other else ("b", "a")
        both = pairs[(pairs[f"set_{a}"] == number) & (pairs[f"set_{b}"] == other)]
        both = both[both[f"image_id_{b}"].isin(rest.manifest["image_id"])]
        if number != other and (count := int(each.manifest["image_id"].isin(both[f"image_id_{a}"]).sum())):
            shared[rest.name] = count
    return replace(each, shared=shared)


def statement(origin: Origin, known: KnownImages | None, sets: Sequence[ExternalSet]) -> list[str]:
    """What a reader must know before the numbers, a sentence each.

    Args:
        origin: of the bundle.
        known: the images that copies were looked for of; ``None`` where they aren't known.
        sets: the data sets, copies taken out.
    """
    sentences = []
    if known is None:
        sentences.append(
            "the images that the bundle was made with are not known (no manifest.parquet of its run beside it): the "
            "data can't be checked for copies of them, and the figures may be flattered"
        )
    elif known.lost:
        sentences.append(
            f"{known.lost} of {len(known.manifest)} images that the bundle was made with can't be read any more: of "
            "these only copies with the same bytes are found"
        )
    if origin.seen:
        tested = origin.seen + (0 if origin.test is None else len(origin.test))
        sentences.append(
            f"{origin.seen} of {tested} internal test images were seen before (their patient, or a copy, is in train "
            "or val); the internal figures are without them"
        )
    if origin.test is None:
        missing = "unseen test images were left" if origin.seen else "internal test result lies beside the bundle"
        sentences.append(f"no {missing}, so there is no fall to state")
    return sentences + [sentence for each in sets for sentence in _about(origin, each)]


def mix_statement(origin: Origin, mix: Mix) -> list[str]:
    """What must be said of the mix of classes that the probabilities are of, a sentence each."""
    if mix.shares is None:
        return [
            f"the probabilities are {mix}: decision curves take the mix of each data set's images for it, and with "
            "class weights or a balanced sampler in training the probabilities are of none that there is"
        ]
    if mix.asked is None:
        return []
    sentences = [
        f"the probabilities are {mix}, those of the internal result and of the baselines too; the images are as "
        "frequent as they are, so log loss, Brier score and ECE mix the two"
    ]
    kept = threshold_sentence(mix, origin.bundle.operating_points, origin.bundle.refer_below is not None)
    return [*sentences, kept] if kept else sentences


def _about(origin: Origin, each: ExternalSet) -> list[str]:
    sentences = [f"{each.name}: {note}" for note in each.notes]
    if copies := sum((each.copies or {}).values()):
        sentences.append(
            f"{each.name}: {copies} images are copies of images that the bundle was made with or tested on; they were "
            "taken out. Copies that were cut, turned or mirrored escape the search"
        )
    if each.same_patients:
        sentences.append(
            f"{each.name}: {each.same_patients} images are of patients of whom the bundle's run has other images"
        )
    synthetic = (each.manifest["source"] == "phantom").any()  # whose patients are nobody
    if each.same_numbers and not synthetic:
        sentences.append(
            f"{each.name}: {each.same_numbers} images bear a source and a patient number that images of the bundle's "
            "run bear too; whether these are the same patients is not known"
        )
    sentences += [f"{each.name}: {text}" for text in conflict_statement(each.within, each.manifest)]
    for other, count in each.shared.items():
        sentences.append(f"{each.name}: {count} images are in {other} too; the two results are not independent")
    if each.gap:
        return [*sentences, f"{each.name}: not evaluated, for {each.gap}"]
    if lacking := [name for name in origin.bundle.classes if name not in set(each.manifest["label"])]:
        sentences.append(
            f"{each.name}: no image is labelled {', '.join(lacking)}; figures that need one are n/a, and means are "
            "over the other classes alone"
        )
    if synthetic:
        sentences.append(f"{each.name}: the images are synthetic; the result says nothing about patients")
    return sentences


def data_facts(each: ExternalSet) -> dict[str, str]:
    """What was done to a data set, in the order of the steps."""
    facts = {"images": f"{each.listed} listed{', their published split ignored' if each.published else ''}"}
    if each.renamed:
        facts["read as"] = ", ".join(f"{label} as {target}" for label, target in each.renamed.items())
    if each.left_out:
        classes = ", ".join(f"{label} {count}" for label, count in each.left_out.items())
        facts["left out"] = f"{classes}: no class of the bundle"
    if each.unreadable:
        facts["unreadable"] = str(each.unreadable)
    facts["copies"] = _copies(each.copies)
    if each.gap:
        return facts | {"evaluated": f"nothing: {each.gap}"}
    counts = each.manifest["label"].value_counts().sort_index()
    facts["evaluated"] = f"{len(each.manifest)} images: {', '.join(f'{k} {n}' for k, n in counts.items())}"
    facts["patients"] = patients_text(each.manifest)
    return facts | {"digest": digest(each.manifest)}


def documented_issues(each: ExternalSet) -> dict[str, str]:
    """What is documented to be wrong with a data set; what was found is said by :func:`statement`."""
    return {"known issues": " ".join(issues_of(each.known_issues)) or "none are documented"}


def _copies(copies: dict[str, int] | None) -> str:
    if copies is None:
        return "not looked for: the images that the bundle was made with are not known"
    where = ", ".join(f"{count} of {split}" for split, count in copies.items())
    return f"{sum(copies.values())} taken out{f' ({where})' if where else ''}"
