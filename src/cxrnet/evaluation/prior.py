"""The prior: the mix of classes that probabilities are of, and how they are carried over to another one.

The softmax of the logits is p(class | image) where the classes are as frequent as they were in training. Elsewhere the
odds change as the priors do (Saerens, Latinne and Decaestecker 2002, doi:10.1162/089976602753284446, eq. 2.4): the log
of new over old is added to the logits. That holds where a class looks the same and is only more or less frequent.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from cxrnet.errors import CxrnetError

FloatArray = npt.NDArray[np.float64]
Shares = Mapping[str, float]
# Shares of all classes may miss a sum of 1 by this: three times 0.333 will do.
ROUNDED = 1.0001e-3


@dataclass(frozen=True)
class Mix:
    """The mix of classes that probabilities are of.

    Attributes:
        trained: share of each class in the training of the model; ``None`` where it isn't known.
        asked: share of each class to which its probabilities are carried over; ``None`` leaves them.
    """

    trained: Shares | None = None
    asked: Shares | None = None

    @property
    def shares(self) -> Shares | None:
        """Share of each class that the probabilities are of; ``None`` where it isn't known."""
        return self.trained if self.asked is None else self.asked

    def shift(self, classes: Sequence[str]) -> FloatArray:
        """Return the shift of the logits of the training mix, (K,); zeros where no other mix is asked for."""
        if self.asked is None or self.trained is None:
            return np.zeros(len(classes))
        return np.array([math.log(self.asked[name] / self.trained[name]) for name in classes])

    def __str__(self) -> str:
        if self.shares is None:
            return "of a mix of classes that is not known (the bundle is of an older version)"
        return f"of {'the training mix' if self.asked is None else 'the prior'} ({listed(self.shares)})"


def read_mix(given: object, trained: Shares | None) -> Mix:
    """Read the option ``prior``.

    Args:
        given: share by class, as ``{COVID: 0.05}``, numbers as class names too; ``None`` for the training mix.
        trained: of the bundle.

    Returns:
        The mix. Classes that are not named share what is left in proportion to their shares in training.

    Raises:
        CxrnetError: it is no such mapping, names an unknown class, doesn't leave the others anything or leaves too
            much, or the training mix isn't known.
    """
    if given is None:
        return Mix(trained)
    if trained is None:
        raise CxrnetError(
            "prior: the bundle is of an older version and doesn't say which mix of classes its probabilities are of; "
            "train it again"
        )
    first = next(iter(trained))
    if not isinstance(given, Mapping) or not given:
        raise CxrnetError(f"prior: {given} is no share by class; give some, as {{{first}: 0.05}}")
    shares = {_class_name(key, trained): value for key, value in given.items()}
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise CxrnetError(f"prior.{name}: {share} is no share of the images; give a number above 0, below 1")
    total = sum(shares.values())
    others = {name: share for name, share in trained.items() if name not in shares}
    if not others and abs(total - 1) > ROUNDED:
        raise CxrnetError(f"prior: the shares sum to {total:g}, not to 1; leave a class out, it takes what is left")
    if others and total >= 1:
        raise CxrnetError(
            f"prior: the shares sum to {total:g}, which leaves nothing for {', '.join(others)}; give smaller ones"
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
        weights: of the images, (N,), summing to one; ``None`` weighs all alike.
    """
    wide = logits.astype(np.float64)
    of_images = np.full(len(wide), 1 / len(wide)) if weights is None else weights

    def objective(offset: FloatArray) -> tuple[float, FloatArray]:
        shifted = wide - offset
        value = of_images @ logsumexp(shifted, axis=1) + shares @ offset
        return float(value), np.asarray(shares - of_images @ softmax(shifted, axis=1))

    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-8})
    return np.asarray(found.x)


def listed(numbers: Shares) -> str:
    """Say numbers by class: ``COVID 0.05, Normal 0.95``."""
    return ", ".join(f"{name} {number:.3g}" for name, number in numbers.items())


def decision_text(weights: Mapping[str, float], points: Collection[str]) -> str:
    """Say what decides where no threshold is reached.

    Args:
        weights: of the decision.
        points: classes with a threshold, fewer than all.
    """
    left = [name for name in weights if name not in points]
    if len(left) == 1:
        return (
            f"{left[0]} where no threshold is reached, for it alone has none; the decision weights "
            f"({listed(weights)}) have no effect"
        )
    among = " of the classes without a threshold" if points else ""
    return f"the class of the largest weight x probability{among} (weights: {listed(weights)})"


def threshold_sentence(mix: Mix, points: Mapping[str, float], deferring: bool) -> str | None:
    """Say what doesn't follow another prior; ``None`` where there is no other prior, or nothing of the kind.

    Args:
        mix: that the probabilities are of.
        points: thresholds by class.
        deferring: the model has a deferral threshold.
    """
    several = len(points) > 1 or (len(points) == 1 and deferring)
    of_points = f"the threshold{'s' if len(points) > 1 else ''} of {', '.join(points)}"
    kept = [of_points] * bool(points) + ["the deferral threshold"] * deferring
    if mix.asked is None or not kept:
        return None
    return (
        f"{' and '.join(kept)} {'were' if several else 'was'} chosen at the training mix and still "
        f"{'apply' if several else 'applies'} to the probabilities at the training mix, not to those at the prior"
    )
