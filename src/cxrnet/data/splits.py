"""Splits into training, validation and test images.

Images of one patient (``patient_id``) and duplicates (``group_id``) never part. A split depends on the table and the
seed only, not on the order of the rows, the file system or the version of a library. What is kept together is called a
cluster: a patient, a group of duplicates, both where they touch, or a single image.
"""

import logging
from collections.abc import Mapping
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.core.grouping import link
from cxrnet.data.manifest import SPLITS
from cxrnet.errors import CxrnetError

FoldsBy = Literal["patient", "image"]

_IntArray = npt.NDArray[np.int64]
_FloatArray = npt.NDArray[np.float64]
_Moves = list[tuple[int, int, int]]  # the type of a cluster, the part that it leaves, the part that it comes into

TOGETHER = ("patient_id", "group_id")
_GOLDEN = (5**0.5 - 1) / 2  # its multiples, without their whole parts, fill 0..1 most evenly
_SMALL, _SWAPPED = 1024, 128  # types that are moved first, and that are swapped: the smallest

logger = logging.getLogger("cxrnet")


def split_manifest(manifest: pd.DataFrame, fractions: Mapping[str, float], seed: int) -> pd.DataFrame:
    """Split a manifest at random, each class in the same proportions; a former split is replaced.

    Without patients and groups the number of images of each class in each split is within one of its share.
    With them the proportions are as near as the clusters allow, and chance decides where a cluster comes: patients
    with many images are tested as often as those with one. Only a cluster that holds more of a class than a split
    should have can't come there, which a warning says. Each split gets at least one image of each class, even where
    its share is less than half an image; train may then lack one more.

    Args:
        manifest: a manifest.
        fractions: share of the images by split, as ``{"train": 0.7, "val": 0.15, "test": 0.15}``; a split not
            named gets none.
        seed: any whole number from 0 on.

    Raises:
        CxrnetError: fractions that are no shares of one, or a class with too few images or clusters.
    """
    shares = _check_fractions(fractions)
    names = [name for name in SPLITS if shares.get(name, 0) > 0]
    parts = _parts(manifest, {name: shares[name] for name in names}, seed, TOGETHER)
    return manifest.assign(split=pd.array(np.array(names, object)[parts], "string"))


def fold_manifest(manifest: pd.DataFrame, folds: int, fold: int, by: FoldsBy, seed: int) -> pd.DataFrame:
    """Split for one run of a cross-validation: one part is test, the next one val, the others train.

    The parts are drawn as in :func:`split_manifest`, equal ones and the same for every ``fold``, so each image is in
    test exactly once. A former split is replaced.

    Args:
        manifest: a manifest.
        folds: number of parts, from 3 on.
        fold: which part is test, from 0 on.
        by: ``patient`` keeps patients and duplicates together; ``image`` parts them, to see what that does to a result.
        seed: any whole number from 0 on.

    Raises:
        CxrnetError: fewer than three folds, an unknown ``by``, or a class with too few images or clusters.
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 3:
        raise CxrnetError(f"folds: {folds}; give a whole number from 3 on (one part is test, one val, the rest train)")
    if by not in get_args(FoldsBy):
        raise CxrnetError(f"folds_by: '{by}' is not known; use patient, or image to see what a leak does")
    shares = {f"fold {part}": 1 / folds for part in range(folds)}
    parts = _parts(manifest, shares, seed, TOGETHER if by == "patient" else ())
    split = np.where(parts == fold, "test", np.where(parts == (fold + 1) % folds, "val", "train"))
    return manifest.assign(split=pd.array(split.astype(object), "string"))


def carve_validation(manifest: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Make a share of train (``fraction``, 0 to 1) the validation split, as :func:`split_manifest` does.

    Raises:
        CxrnetError: there is no train or there is a val already, or the fraction or a class forbids it.
    """
    if not 0 < fraction < 1:
        raise CxrnetError(f"data.split: val fraction {fraction} is no share; give one between 0 and 1")
    train = manifest["split"].eq("train").fillna(False).to_numpy(bool)
    if not train.any():
        raise CxrnetError("data.split: no train to carve val from; split the data at random")
    if manifest["split"].eq("val").any():
        raise CxrnetError("data.split: val is there already; keep the split as it is")
    split = manifest["split"].to_numpy(object, copy=True)
    split[train] = split_manifest(manifest[train], {"train": 1 - fraction, "val": fraction}, seed)["split"]
    return manifest.assign(split=pd.array(split, "string"))


def complete_split(manifest: pd.DataFrame, fractions: Mapping[str, float], seed: int) -> pd.DataFrame:
    """Keep a published split and draw only what it lacks, by ``fractions`` as of :func:`split_manifest`.

    Nothing published: all is split. Train and test without val: a part of train becomes val, as large beside train as
    ``fractions`` say. Train and val: kept as they are.

    Raises:
        CxrnetError: only some of the images have a split, or the split has no train, or see :func:`split_manifest`.
    """
    published = set(manifest["split"].dropna().unique())
    if not published:
        return split_manifest(manifest, fractions, seed)
    if empty := int(manifest["split"].isna().sum()):
        raise CxrnetError(f"data.split: {empty} of {len(manifest)} images have no split; give all of them one, or none")
    if "val" in published:
        return manifest
    shares = _check_fractions(fractions)
    return carve_validation(manifest, shares.get("val", 0) / (shares.get("train", 0) + shares.get("val", 0)), seed)


def _check_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(fractions, Mapping):
        raise CxrnetError(f"data.split.fractions: {fractions} is no mapping; give {{train: 0.7, val: 0.3}}")
    if unknown := [name for name in fractions if name not in SPLITS]:
        raise CxrnetError(f"data.split: '{unknown[0]}' is not a split; use {', '.join(SPLITS)}")
    for name, share in fractions.items():
        if share is not None and not isinstance(share, int | float):
            raise CxrnetError(f"data.split: {name} {share} is no number; give a fraction between 0 and 1")
    shares = {name: float(share or 0) for name, share in fractions.items()}
    text = ", ".join(f"{name} {share:g}" for name, share in shares.items())
    if not all(0 <= share <= 1 for share in shares.values()):
        raise CxrnetError(f"data.split: {text}; each fraction must lie between 0 and 1")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise CxrnetError(f"data.split: {text} sum to {sum(shares.values()):g}; the fractions must sum to 1")
    return shares


def _parts(manifest: pd.DataFrame, shares: Mapping[str, float], seed: int, together: tuple[str, ...]) -> _IntArray:
    """Allocate each image ``(N,)`` to a place in ``shares``; images that share a value of ``together`` get one."""
    if not isinstance(seed, int) or seed < 0:
        raise CxrnetError(f"seed: {seed} is no seed; give a whole number from 0 on")
    names = list(shares)
    rows = manifest.reset_index(drop=True).sort_values("image_id")
    labels = pd.Categorical(rows["label"].astype(str))
    clusters = link(rows, together) if together else np.arange(len(rows))
    contents = np.zeros((clusters.max() + 1, len(labels.categories)))  # floats: exact here, and fast in products
    np.add.at(contents, (clusters, labels.codes), 1)
    for label, number, images in zip(labels.categories, (contents > 0).sum(axis=0), contents.sum(axis=0), strict=True):
        if number < len(names):
            raise CxrnetError(
                f"data.split: class '{label}' has {images:.0f} images in {number} clusters (patients, duplicates), "
                f"too few for {len(names)} splits ({', '.join(names)}); add images, drop it or use fewer splits"
            )
    # Clusters that chance can't bring into every part, because they hold more of a class than it should have.
    targets = _nearest_targets(contents.sum(axis=0), np.array(list(shares.values())))
    fits = np.all(contents[:, None] <= targets + 1, axis=2)  # as allocate has it, (U, S)
    some = np.any(fits, axis=1, keepdims=True)  # what fits nowhere, as in folds, can come into any
    for name, large in zip(names, (some & ~fits).T, strict=True):
        if large.any():
            logger.warning(
                "data.split: %d patients or duplicate groups (%.0f images) hold more images of a class than all of %s "
                "should, so they stay out of it; %s tells nothing of patients with so many images",
                large.sum(),
                contents[large].sum(),
                name,
                name,
            )
    place = allocate(contents, np.array(list(shares.values())), seed)
    have = np.zeros((len(names), len(labels.categories)))
    np.add.at(have, place, contents)
    for part, k in np.argwhere(have == 0):
        raise CxrnetError(
            f"data.split: no image of class '{labels.categories[k]}' is left for {names[part]}, because they stand in "
            "few clusters (patients, duplicates); try another seed, drop the class or use fewer splits"
        )
    parts = np.empty(len(rows), np.int64)
    parts[rows.index] = place[clusters]
    return parts


def allocate(contents: _FloatArray, shares: _FloatArray, seed: int) -> _IntArray:
    """Give each cluster a part ``(U,)``, by chance, so that the parts come near to their shares of every class.

    Types, clusters of the same ``contents`` (images of each class, ``(U, K)``), are drawn from the largest to the
    smallest, each in proportion to what the parts still lack of its classes: so a cluster of any size comes into a part
    with the probability that is the part's share ``(S,)``, and small clusters make up for what large ones leave. Then
    clusters are moved one by one while that helps. The seed is any whole number from 0 on.
    """
    bits = np.random.PCG64(seed)  # its raw numbers are the same on every system and in every version
    shuffled = np.argsort(bits.random_raw(len(shares)), kind="stable")  # where parts are alike, none comes first
    start = bits.random_raw() / 2.0**64
    order = np.lexsort((bits.random_raw(len(contents)), *contents.T, -contents.sum(axis=1)))
    ordered = contents[order]
    first = np.flatnonzero(np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1)))
    types, counts = ordered[first], np.diff(np.append(first, len(order)))
    targets = _nearest_targets(contents.sum(axis=0), shares[shuffled])
    numbers = _draw(types, counts, targets, start)
    have = numbers.T @ types
    # The smallest types are moved first: large clusters stay where chance put them.
    for least in sorted({max(0, len(types) - _SMALL), 0}, reverse=True):
        _repair(numbers[least:], types[least:], targets, have)
    place = np.empty(len(contents), np.int64)
    place[order] = np.repeat(np.tile(shuffled, len(first)), numbers.ravel())
    return place


def _nearest_targets(totals: _FloatArray, shares: _FloatArray) -> _FloatArray:
    """Find the whole numbers of images by part and class ``(S, K)`` nearest to the shares (largest remainder).

    Where remainders are equal, the part goes first that lacks most of the classes before.
    """
    exact = np.round(shares[:, None] * totals[None, :], 9)
    targets = np.floor(exact)
    lack = np.zeros(len(shares))
    for k, rest in enumerate((totals - targets.sum(axis=0)).astype(int)):
        remainder = (exact - targets)[:, k]
        targets[np.lexsort((-lack.round(6), -remainder.round(6)))[:rest], k] += 1
        lack += (exact - targets)[:, k]
    return targets


def _draw(contents: _FloatArray, counts: _IntArray, targets: _FloatArray, start: float) -> _IntArray:
    """Draw the number of clusters of each type that come into each part, ``(T, S)``; ``start`` is 0..1, by chance.

    ``contents`` ``(T, K)`` of the types (largest first), ``counts`` ``(T,)`` of their clusters, ``targets`` ``(S, K)``.
    """
    need = targets.copy()
    numbers = np.zeros((len(contents), len(targets)), np.int64)
    chances = (start + _GOLDEN * np.arange(len(contents))) % 1
    for number, content, count, chance in zip(numbers, contents, counts, chances, strict=True):
        fits = (content <= need + 1).all(axis=1)
        if not fits.any():
            fits = (content <= targets + 1).all(axis=1)
        if not fits.any():  # larger than any part should be, so there are fewer of them than parts
            for _ in range(count):
                part = int(np.argmax(need @ content))
                number[part] += 1
                need[part] -= content
            continue
        lack = np.maximum(need, 0)
        weight = fits * (lack @ (content / np.maximum(lack.sum(axis=0), 1)))
        weight = weight if weight.any() else fits.astype(float)
        # Systematic sampling (Madow 1949, doi:10.1214/aoms/1177729988): each number is one of the two whole
        # numbers next to what is expected, and on average what is expected.
        ends = np.floor((weight / weight.sum() * count).cumsum().round(9) + chance)
        number[:] = ends
        number[1:] -= ends[:-1].astype(np.int64)
        need -= number[:, None] * content
    return numbers


def _repair(numbers: _IntArray, contents: _FloatArray, targets: _FloatArray, have: _FloatArray) -> None:
    """Move one cluster, or where none helps swap two, the best first, while the parts come nearer to ``targets``.

    A part without any image of a class weighs more than all distances together. ``numbers`` ``(T, S)`` of some types
    and ``have`` ``(S, K)``, the images of all types in the parts, are changed.
    """
    heavy = 8 * targets.sum() ** 2
    holds = (contents > 0).astype(float)
    squares = 2 * (contents**2).sum(axis=1)
    moves: _Moves = []
    while True:
        for kind, source, goal in moves:
            numbers[kind, source] -= 1
            numbers[kind, goal] += 1
            have[source] -= contents[kind]
            have[goal] += contents[kind]
        # Fall of the sum of the squared distances where a cluster comes and where it goes, (T, S) each.
        pull = 2 * contents @ (targets - have).T
        emptied = (holds[:, None] * (have == contents[:, None])).sum(axis=2)
        come = pull + heavy * (holds @ (have == 0).T)
        go = np.where(numbers > 0, -pull - heavy * emptied, -np.inf) - squares[:, None]
        gain = come.max(axis=1) + go.max(axis=1)
        kind = int(np.argmax(gain))
        if gain[kind] > 0:
            moves = [(kind, int(np.argmax(go[kind])), int(np.argmax(come[kind])))]
        elif not (moves := _best_swap(come, go, contents)):
            return


def _best_swap(come: _FloatArray, go: _FloatArray, contents: _FloatArray) -> _Moves:
    """Choose the two moves of a swap among the smallest types; nothing where no swap helps."""
    skipped = max(0, len(contents) - _SWAPPED)
    come, go, contents = come[skipped:], go[skipped:], contents[skipped:]
    both = 4 * contents @ contents.T
    best, moves = 0.0, []
    for one, other in combinations(range(come.shape[1]), 2):
        gain = (go[:, one] + come[:, other])[:, None] + go[:, other] + come[:, one] + both
        there, back = divmod(int(np.argmax(gain)), len(contents))
        if gain[there, back] > best:
            best, moves = gain[there, back], [(skipped + there, one, other), (skipped + back, other, one)]
    return moves
