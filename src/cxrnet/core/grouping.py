"""Clusters: rows of a table that share a value, directly or through other rows.

Images of one patient, duplicates of one image, patients who share an image: a split must not part them, and a bootstrap
must draw them together.
"""

import logging

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

IntArray = npt.NDArray[np.int64]

# Words for an unknown patient, in lower case; taken for a name they would make one cluster of all of these images.
NOBODY = (
    "nan", "none", "null", "na", "n/a", "<na>", "unknown", "unk", "not known", "missing", "?", "-", "anonymous",
    "anonymized", "anonymised",
)  # fmt: skip

logger = logging.getLogger("cxrnet")


def link(rows: pd.DataFrame, columns: tuple[str, ...]) -> IntArray:
    """Number the clusters of rows that share a value, directly or through other rows.

    Args:
        rows: any table.
        columns: its columns; an empty or missing cell ties nothing.

    Returns:
        For each row the number of its cluster, ``(len(rows),)``, from 0 in the order of first appearance.
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
        nodes: their number.
        start: one end of each edge, ``(E,)``.
        end: the other end, ``(E,)``.

    Returns:
        For each node the number of its component, ``(nodes,)``, from 0 in the order of first appearance.
    """
    if not len(start):
        return np.arange(nodes)
    graph = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(nodes, nodes))
    numbers: IntArray = pd.factorize(connected_components(graph, directed=False)[1])[0]
    return numbers


def known_cells(column: pd.Series) -> npt.NDArray[np.bool_]:
    """Tell which cells (N,) are not empty."""
    known: npt.NDArray[np.bool_] = (column.notna() & (column.fillna("") != "")).to_numpy(bool)
    return known


def read_ids(column: pd.Series, where: str) -> pd.Series:
    """Read ids of patients or groups as text, without the spaces around them.

    Args:
        column: as a table has it.
        where: names the table in the warning.

    Returns:
        The ids, ``string``, missing where a cell is empty or, with a warning, one of :data:`NOBODY`.
    """
    ids = column.astype("string").str.strip()
    nobody = ids.str.lower().isin(NOBODY)
    if nobody.any():
        words = ", ".join(f"'{word}' {count}" for word, count in ids[nobody].value_counts().items())
        logger.warning("%s: %s is read as not known in %d rows (%s)", where, column.name, nobody.sum(), words)
    return ids.mask(nobody | (ids == ""))
