"""From probabilities to a prediction: the prior they hold for, decision weights and thresholds.

The softmax of the logits is p(class | image) where the classes are as frequent as in training. For another prior the
odds change as the priors do (Saerens, Latinne and Decaestecker 2002, doi:10.1162/089976602753284446, eq. 2.4): the log
of new over old is added to the logits. That holds where a class looks the same and is only more or less frequent.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from cxrnet.errors import CxrnetError

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]
Shares = Mapping[str, float]
_ROUNDED = 1.0001e-3  # by which a sum of shares may miss 1: three times 0.333 will do


@dataclass(frozen=True)
class DecisionRule:
    """The rule that turns probabilities into predictions.

    A class is predicted when its probability reaches its threshold; where several do, the first of them in the order of
    the mapping. Otherwise the largest weight x probability among the classes without a threshold decides.

    Attributes:
        points: threshold by class.
        weights: weights of the probability of each class, above 0; ``None`` weighs all alike.
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

    def certainty(self, probabilities: FloatArray, classes: Sequence[str], predicted: IndexArray) -> FloatArray:
        """Compute how certain each prediction of :func:`decide` is, (N,) in [0, 1], from probabilities (N, K).

        It is the probability of the predicted class or, where weights decide, its share in the sum of weight x
        probability: the probability alone is small wherever the weights chose the class, and would send nearly every
        prediction of a class that weighs more to a reader.
        """
        weights = self.deciding_weights
        scores = probabilities if weights is None else probabilities * [weights[name] for name in classes]
        return np.asarray(scores[np.arange(len(predicted)), predicted] / (1 if weights is None else scores.sum(axis=1)))


def check_operating_points(points: Mapping[str, float] | None, classes: Sequence[str]) -> dict[str, float]:
    """Check thresholds, above 0 and at most 1, against the classes; return them as plain numbers.

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
    probabilities: FloatArray,
    classes: Sequence[str],
    points: Mapping[str, float],
    weights: Mapping[str, float] | None = None,
    at_training: FloatArray | None = None,
) -> IndexArray:
    """Predict the class of each image, as :class:`DecisionRule` has it: places in ``classes``, (N,).

    Args:
        probabilities: (N, K) in 0..1, rows sum to one.
        classes: the names of the K classes, in order.
        points: threshold by class, checked.
        weights: weights of each class; ``None`` weighs all alike.
        at_training: the probabilities for the prior of the training, at which thresholds were chosen and with which
            they are compared, so that their sensitivity and specificity stay; ``None`` where they are the same.
    """
    others = [index for index, name in enumerate(classes) if name not in points]
    scores = probabilities if weights is None else probabilities * [weights[name] for name in classes]
    predicted = np.asarray(others)[scores[:, others].argmax(axis=1)]
    chosen_at = probabilities if at_training is None else at_training
    for name, threshold in reversed(list(points.items())):  # so that the first one has the last word
        index = list(classes).index(name)
        predicted = np.where(chosen_at[:, index] >= threshold, index, predicted)
    return np.asarray(predicted, dtype=np.intp)


@dataclass(frozen=True)
class Mix:
    """The class shares that probabilities hold for.

    Attributes:
        trained: share of each class in the training of the model; ``None`` where it isn't known.
        asked: share of each class to which its probabilities are carried over; ``None`` leaves them.
    """

    trained: Shares | None = None
    asked: Shares | None = None

    @property
    def shares(self) -> Shares | None:
        """Share of each class that the probabilities hold for; ``None`` where it isn't known."""
        return self.trained if self.asked is None else self.asked

    def shift(self, classes: Sequence[str]) -> FloatArray:
        """Return what is added to the logits of the training prior, (K,); zeros where no other prior is asked for."""
        if self.asked is None or self.trained is None:
            return np.zeros(len(classes))
        return np.array([math.log(self.asked[name] / self.trained[name]) for name in classes])

    def __str__(self) -> str:
        if self.shares is None:
            return "for unknown class prevalences (the bundle is of an older version)"
        return f"for the {'training prevalences' if self.asked is None else 'given prior'} ({listed(self.shares)})"


def read_mix(given: object, trained: Shares | None) -> Mix:
    """Read the option ``prior``.

    Args:
        given: share by class, as ``{COVID: 0.05}``, numbers as class names too; ``None`` for the training prior.
        trained: the training prevalences of the bundle.

    Returns:
        The mix. Classes that are not named share what is left in proportion to their shares in training.

    Raises:
        CxrnetError: it is no such mapping, names an unknown class, doesn't leave the others anything or leaves too
            much, or the shares in training aren't known.
    """
    if given is None:
        return Mix(trained)
    if trained is None:
        raise CxrnetError(
            "prior: the bundle is of an older version and doesn't say which class prevalences its probabilities hold "
            "for; train it again"
        )
    if not isinstance(given, Mapping) or not given:
        first = next(iter(trained))
        raise CxrnetError(f"prior: {given} gives no prevalence of a class; give some, as {{{first}: 0.05}}")
    shares = {_class_name(key, trained): value for key, value in given.items()}
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise CxrnetError(f"prior.{name}: {share} is no prevalence; give a number above 0, below 1")
    total = sum(shares.values())
    others = {name: share for name, share in trained.items() if name not in shares}
    if not others and abs(total - 1) > _ROUNDED:
        raise CxrnetError(f"prior: the prevalences sum to {total:g}, not to 1; leave out a class, it gets the rest")
    if others and total >= 1:
        raise CxrnetError(
            f"prior: the prevalences sum to {total:g}, which leaves nothing for {', '.join(others)}; give smaller ones"
        )
    left = (1 - total) / sum(others.values()) if others else 0.0
    whole = 1.0 if others else total
    return Mix(trained, {name: shares[name] / whole if name in shares else trained[name] * left for name in trained})


def _class_name(key: object, classes: Shares) -> str:
    """Return the class that a key of a mapping means: Hydra reads 1 as a number and true as a truth value."""
    for name in classes:
        if name == str(key) or (isinstance(key, bool) and name.lower() == str(key).lower()):
            return name
    raise CxrnetError(f"prior: '{key}' is no class; the classes are {', '.join(classes)}")


def fitted_offset(
    logits: npt.NDArray[np.floating], shares: FloatArray, start: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Fit the offset b (K,) for which the mean over images of softmax(z - b) is ``shares``.

    It is where the mean of log softmax(z - b) over images and, by their shares, classes is largest: concave in b.

    Args:
        logits: (N, K), finite.
        shares: (K,), above 0, summing to one.
        start: where the search begins, (K,); it stays there where that does, as with images that are learnt by heart.
        weights: weights of the images, (N,), summing to one; ``None`` weighs all alike.
    """
    wide = logits.astype(np.float64)
    of_images = np.full(len(wide), 1 / len(wide)) if weights is None else weights

    def objective(offset: FloatArray) -> tuple[float, FloatArray]:
        shifted = wide - offset
        value = of_images @ logsumexp(shifted, axis=1) + shares @ offset
        return float(value), np.asarray(shares - of_images @ softmax(shifted, axis=1))

    return np.asarray(minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-8}).x)


def listed(numbers: Shares) -> str:
    """Say numbers by class: ``COVID 0.05, Normal 0.95``."""
    return ", ".join(f"{name} {number:.3g}" for name, number in numbers.items())


def decision_text(weights: Mapping[str, float], points: Collection[str]) -> str:
    """Say what is predicted where no threshold is reached; ``points``: the classes with one, fewer than all."""
    left = [name for name in weights if name not in points]
    if len(left) == 1:
        return (
            f"{left[0]} where no threshold is reached, as the only class without one; the decision weights "
            f"({listed(weights)}) have no effect"
        )
    among = " of the classes without a threshold" if points else ""
    return f"the class of the largest weight x probability{among} (weights: {listed(weights)})"


def threshold_sentence(mix: Mix, points: Mapping[str, float], deferring: bool) -> str | None:
    """Say which thresholds another prior leaves as they are; ``None`` without another prior, or without a threshold."""
    several = len(points) > 1 or (len(points) == 1 and deferring)
    of_points = f"the threshold{'s' if len(points) > 1 else ''} of {', '.join(points)}"
    kept = [of_points] * bool(points) + ["the deferral threshold"] * deferring
    if mix.asked is None or not kept:
        return None
    return (
        f"{' and '.join(kept)} {'were' if several else 'was'} chosen at the training prevalences and still "
        f"{'apply' if several else 'applies'} to the probabilities for those, not to the probabilities for the prior"
    )
