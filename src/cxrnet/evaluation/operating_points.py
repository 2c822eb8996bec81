"""Operating points: from which probability on a class is called.

An operating point is a class and a threshold. A class is called when its probability reaches its threshold; where
several do, the first of them in the order of the mapping. Otherwise the largest probability among the classes
without a threshold decides. With none, the largest probability of all decides.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cxrnet.errors import CxrnetError


def check_operating_points(points: Mapping[str, float] | None, classes: Sequence[str]) -> dict[str, float]:
    """Check thresholds against the classes; return them as plain numbers.

    Args:
        points: threshold by class, above 0 and at most 1; ``None`` for none.
        classes: the names of the K classes.

    Raises:
        CxrnetError: a class is unknown, a threshold out of range, or no class is left to be called otherwise.
    """
    points = points or {}
    for name, threshold in points.items():
        if name not in classes:
            raise CxrnetError(f"operating_points: '{name}' is no class; the classes are {', '.join(classes)}")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
            raise CxrnetError(f"operating_points.{name}: {threshold} is no threshold; give a number above 0, at most 1")
    if points and len(points) == len(classes):
        raise CxrnetError("operating_points: every class has a threshold; leave one out, to be called where none fits")
    return {name: float(threshold) for name, threshold in points.items()}


def decide(
    probabilities: npt.NDArray[np.float64], classes: Sequence[str], points: Mapping[str, float]
) -> npt.NDArray[np.intp]:
    """Call a class for each image.

    Args:
        probabilities: (N, K) in 0..1, rows sum to one.
        classes: the names of the K classes, in order.
        points: threshold by class, as :func:`check_operating_points` returned it.

    Returns:
        Places in ``classes``, (N,).
    """
    others = [index for index, name in enumerate(classes) if name not in points]
    called = np.asarray(others)[probabilities[:, others].argmax(axis=1)]
    for name, threshold in reversed(list(points.items())):  # so that the first one has the last word
        index = list(classes).index(name)
        called = np.where(probabilities[:, index] >= threshold, index, called)
    return np.asarray(called, dtype=np.intp)


def refer(probabilities: npt.NDArray[np.float64], called: npt.NDArray[np.intp], below: float) -> npt.NDArray[np.bool_]:
    """Say which calls are left to a reader (:func:`cxrnet.evaluation.referral.choose_cutoff`).

    Args:
        probabilities: (N, K) in 0..1.
        called: what :func:`decide` returned, (N,).
        below: calls of a lower probability are.

    Returns:
        (N,).
    """
    return np.asarray(probabilities[np.arange(len(called)), called] < below)
