"""Splits: which images are for training, which for validation, which for testing.

Images of one patient (``patient_id``) and copies of one image (``group_id``) never part. A split depends on
the table and the seed only, not on the order of the rows, the file system or the version of a library.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxrnet.data.manifest import SPLITS
from cxrnet.errors import CxrnetError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

TOGETHER = ("patient_id", "group_id")


def split_manifest(manifest: pd.DataFrame, fractions: Mapping[str, float], seed: int) -> pd.DataFrame:
    """Split a manifest at random, each class in the same proportions; a former split is replaced.

    Without patients and groups the number of images of each class in each split is within one of its share.
    With them the proportions are as near as the groups allow: the largest group goes first, each to the split
    that lacks most of what it holds, then groups are moved one by one as long as that helps. Each split gets
    at least one image of each class, even where its share is less than half an image; train may then lack one
    more.

    Args:
        manifest: a manifest.
        fractions: share of the images by split, as ``{"train": 0.7, "val": 0.15, "test": 0.15}``; a split not
            named gets none.
        seed: any whole number from 0 on.

    Returns:
        The manifest with ``split`` filled, rows in the order given.

    Raises:
        CxrnetError: fractions that are no shares of one, or a class with too few images or groups.
    """
    shares = _check_fractions(fractions)
    _check_seed(seed)
    names = [name for name in SPLITS if shares.get(name, 0) > 0]
    rows = manifest.reset_index(drop=True).sort_values("image_id")
    labels = pd.Categorical(rows["label"].astype(str))
    units = link(rows, TOGETHER)
    contents = _contents(units, labels.codes.astype(np.int64), len(labels.categories))
    _check_groups(contents, list(labels.categories), names)
    targets = _targets(contents.sum(axis=0), np.array([shares[name] for name in names]))
    place = _assign(contents, targets, np.random.PCG64(seed).random_raw(len(contents)))
    _check_complete(place, contents, list(labels.categories), names)
    split = np.empty(len(rows), object)
    split[rows.index] = np.array(names, object)[place[units]]
    return manifest.assign(split=pd.array(split, "string"))


def carve_validation(manifest: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Make a part of train the validation split, as :func:`split_manifest` does; the rest stays as it is.

    Args:
        manifest: a manifest with a published split: ``train``, and usually ``test``.
        fraction: share of train that becomes ``val``, between 0 and 1.
        seed: any whole number from 0 on.

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
    """Keep a published split and draw only what it lacks.

    Nothing published: all is split by ``fractions``. Train and test without val: a part of train becomes val, as large
    beside train as ``fractions`` say. Train and val: kept as they are.

    Raises:
        CxrnetError: only some of the images have a split, or the split has no train, or see :func:`split_manifest`.
    """
    published = set(manifest["split"].dropna())
    if not published:
        return split_manifest(manifest, fractions, seed)
    if empty := int(manifest["split"].isna().sum()):
        raise CxrnetError(f"data.split: {empty} of {len(manifest)} images have no split; give all of them one, or none")
    if "val" in published:
        return manifest
    shares = _check_fractions(fractions)
    return carve_validation(manifest, shares.get("val", 0) / (shares.get("train", 0) + shares.get("val", 0)), seed)


def link(rows: pd.DataFrame, columns: tuple[str, ...]) -> IntArray:
    """Number the sets of rows that share a value, directly or through other rows.

    Args:
        rows: any table.
        columns: its columns; an empty or missing cell ties nothing.

    Returns:
        For each row the number of its set, ``(len(rows),)``, from 0 in the order of first appearance.
    """
    starts, ends, nodes = [], [], len(rows)
    for column in columns:
        where = np.flatnonzero(known_cells(rows[column]))
        codes, values = pd.factorize(rows[column].iloc[where])
        starts.append(where)
        ends.append(codes + nodes)
        nodes += len(values)
    return components(nodes, np.concatenate(starts), np.concatenate(ends))[: len(rows)]


def components(nodes: int, start: IntArray, end: IntArray) -> IntArray:
    """Number the connected components of a graph.

    Args:
        nodes: how many there are.
        start: one end of each edge, ``(E,)``.
        end: the other one, ``(E,)``.

    Returns:
        For each node the number of its component, ``(nodes,)``, from 0 in the order of first appearance.
    """
    graph = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(nodes, nodes))
    numbers: IntArray = pd.factorize(connected_components(graph, directed=False)[1])[0]
    return numbers


def known_cells(column: pd.Series) -> npt.NDArray[np.bool_]:
    """Which cells (N,) hold something."""
    known: npt.NDArray[np.bool_] = (column.notna() & (column.fillna("") != "")).to_numpy(bool)
    return known


def _contents(units: IntArray, codes: IntArray, classes: int) -> FloatArray:
    """Images of each class in each unit, ``(U, K)``; as floats, which are exact here and fast in products."""
    contents = np.zeros((units.max() + 1, classes))
    np.add.at(contents, (units, codes), 1)
    return contents


def _targets(totals: FloatArray, shares: FloatArray) -> FloatArray:
    """Whole numbers of images by split and class ``(S, K)`` nearest to the shares (largest remainder)."""
    exact = np.round(shares[:, None] * totals[None, :], 9)
    targets = np.floor(exact)
    order = np.argsort(-(exact - targets).round(6), axis=0, kind="stable")
    for k, rest in enumerate((totals - targets.sum(axis=0)).astype(int)):
        targets[order[:rest, k], k] += 1
    return targets


def _assign(contents: FloatArray, targets: FloatArray, keys: npt.NDArray[np.uint64]) -> IntArray:
    """Give each unit ``(U, K)`` a split ``(U,)`` so that the splits come near to ``targets`` ``(S, K)``."""
    order = np.argsort(keys, kind="stable")
    sizes = contents.sum(axis=1)
    place = np.zeros(len(contents), np.int64)
    need = targets.copy()
    several = order[sizes[order] > 1]
    for unit in several[np.argsort(-sizes[several], kind="stable")]:
        # The squared distance to the targets falls most where need and content point the same way.
        place[unit] = split = int(np.argmax(need @ contents[unit]))
        need[split] -= contents[unit]
    single = order[sizes[order] == 1]
    for k in range(contents.shape[1]):
        members = single[contents[single, k] == 1]
        place[members] = np.repeat(np.arange(len(targets)), _fill(need[:, k], len(members)))
    _repair(place, contents, targets)
    return place


def _fill(need: FloatArray, available: int) -> IntArray:
    """Hand out single images by need ``(S,)``; what groups took too much, the other splits lack equally."""
    given = np.maximum(need, 0).astype(np.int64)
    lack = np.zeros_like(given)
    for _ in range(int(given.sum()) - available):
        split = np.argmin(np.where(given > 0, lack, np.iinfo(np.int64).max))
        given[split] -= 1
        lack[split] += 1
    return given


def _repair(place: IntArray, contents: FloatArray, targets: FloatArray) -> None:
    """Move one unit at a time, the best first, while that brings the splits nearer to ``targets``.

    A split without any image of a class weighs more than all distances together. ``place`` is changed.
    """
    heavy = 8 * contents.sum() ** 2
    holds = (contents > 0).astype(float)
    squares = (contents**2).sum(axis=1)
    have = np.zeros_like(targets)
    np.add.at(have, place, contents)
    while True:
        need = targets - have
        pull = contents @ need.T
        rows = np.arange(len(place))
        gain = 2 * (pull - pull[rows, place][:, None] - squares[:, None])
        emptied = (holds * (have[place] == contents)).sum(axis=1)
        gain += heavy * (holds @ (have == 0).T - emptied[:, None])
        gain[rows, place] = 0
        unit, split = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if gain[unit, split] <= 0:
            return
        have[place[unit]] -= contents[unit]
        have[split] += contents[unit]
        place[unit] = split


def _check_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
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


def _check_seed(seed: int) -> None:
    if not isinstance(seed, int) or seed < 0:
        raise CxrnetError(f"seed: {seed} is no seed; give a whole number from 0 on")


def _check_groups(contents: FloatArray, classes: list[str], names: list[str]) -> None:
    for name, units, images in zip(classes, (contents > 0).sum(axis=0), contents.sum(axis=0), strict=True):
        if units < len(names):
            raise CxrnetError(
                f"data.split: class '{name}' has {images:.0f} images in {units} groups (patients, copies), "
                f"too few for {len(names)} splits ({', '.join(names)}); add images, drop it or use fewer splits"
            )


def _check_complete(place: IntArray, contents: FloatArray, classes: list[str], names: list[str]) -> None:
    have = np.zeros((len(names), len(classes)))
    np.add.at(have, place, contents)
    for split, k in np.argwhere(have == 0):
        raise CxrnetError(
            f"data.split: no image of class '{classes[k]}' is left for {names[split]}, because they stand in "
            "few groups (patients, copies); try another seed, drop the class or use fewer splits"
        )
