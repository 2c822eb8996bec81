"""Operating points: from which probability on a class is predicted.

An operating point is a class and a threshold. A class is predicted when its probability reaches its threshold; where
several do, the first of them in the order of the mapping. Otherwise the largest weight x probability among the classes
without a threshold decides. A model that was trained with class weights, or with other costs, has such weights; without
them all classes weigh the same, and the most probable one is predicted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cxrnet.errors import CxrnetError


@dataclass(frozen=True)
class DecisionRule:
    """The rule that turns probabilities into predictions.

    Attributes:
        points: threshold by class.
        weights: of the probability of each class, above 0; ``None`` weighs all alike.
        defer_below: predictions of a lower certainty are deferred to a reader; ``None`` where none is.
    """

    points: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] | None = None
    defer_below: float | None = None

    @property
    def deciding_weights(self) -> Mapping[str, float] | None:
        """The weights where they decide between classes; ``None`` where thresholds leave one class only."""
        return self.weights if self.weights is not None and len(self.weights) - len(self.points) > 1 else None

    @property
    def certainty_name(self) -> str:
        """The measure of :meth:`certainty`, in words that follow "its"."""
        return "probability" if self.deciding_weights is None else "share in the sum of weight x probability"

    def certainty(
        self, probabilities: npt.NDArray[np.float64], classes: Sequence[str], predicted: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.float64]:
        """Compute how certain each prediction is, (N,) in [0, 1].

        It is the probability of the predicted class or, where weights decide, its share in the sum of weight x
        probability. The probability alone would be small wherever the weights chose the class, and so a reader would
        get, of a class that weighs more, nearly every prediction.

        Args:
            probabilities: (N, K) in 0..1.
            classes: the names of the K classes, in order.
            predicted: what :func:`decide` returned, (N,).
        """
        weights = self.deciding_weights
        scores = probabilities if weights is None else probabilities * [weights[name] for name in classes]
        return np.asarray(scores[np.arange(len(predicted)), predicted] / (1 if weights is None else scores.sum(axis=1)))


def check_operating_points(points: Mapping[str, float] | None, classes: Sequence[str]) -> dict[str, float]:
    """Check thresholds against the classes; return them as plain numbers.

    Args:
        points: threshold by class, above 0 and at most 1; ``None`` for none.
        classes: the names of the K classes.

    Raises:
        CxrnetError: a class is unknown, a threshold out of range, or no class is left to be predicted otherwise.
    """
    points = points or {}
    for name, threshold in points.items():
        if name not in classes:
            raise CxrnetError(f"operating_points: '{name}' is no class; the classes are {', '.join(classes)}")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
            raise CxrnetError(f"operating_points.{name}: {threshold} is no threshold; give a number above 0, at most 1")
    if points and len(points) == len(classes):
        raise CxrnetError("operating_points: every class has a threshold; leave one out, for images where none fits")
    return {name: float(threshold) for name, threshold in points.items()}


def decide(
    probabilities: npt.NDArray[np.float64],
    classes: Sequence[str],
    points: Mapping[str, float],
    weights: Mapping[str, float] | None = None,
    at_training: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.intp]:
    """Predict the class of each image.

    Args:
        probabilities: (N, K) in 0..1, rows sum to one.
        classes: the names of the K classes, in order.
        points: threshold by class, as :func:`check_operating_points` returned it.
        weights: of each class; ``None`` weighs all alike.
        at_training: where the probabilities were carried over to another prior, those at the training mix, at which
            thresholds were chosen: these are compared with them, so that their sensitivity and specificity stay.

    Returns:
        Places in ``classes``, (N,).
    """
    others = [index for index, name in enumerate(classes) if name not in points]
    scores = probabilities if weights is None else probabilities * [weights[name] for name in classes]
    predicted = np.asarray(others)[scores[:, others].argmax(axis=1)]
    chosen_at = probabilities if at_training is None else at_training
    for name, threshold in reversed(list(points.items())):  # so that the first one has the last word
        index = list(classes).index(name)
        predicted = np.where(chosen_at[:, index] >= threshold, index, predicted)
    return np.asarray(predicted, dtype=np.intp)
