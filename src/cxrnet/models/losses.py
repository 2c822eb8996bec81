"""Losses and class weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cxrnet.errors import CxrnetError

ClassWeights = str | Sequence[float]


def cross_entropy(counts: Sequence[int], class_weights: ClassWeights, label_smoothing: float) -> nn.CrossEntropyLoss:
    """Cross-entropy with class weights computed from the training split.

    Args:
        counts: training images of each class, in class order.
        class_weights: see :func:`weights_of`.
        label_smoothing: 0 (off) to 1.

    Raises:
        CxrnetError: the class weights (see :func:`weights_of`) or the smoothing are not usable.
    """
    if not isinstance(label_smoothing, int | float) or not 0 <= label_smoothing <= 1:
        raise CxrnetError(f"loss.label_smoothing: {label_smoothing} is no share; give a number from 0 to 1")
    return nn.CrossEntropyLoss(weight=weights_of(class_weights, counts), label_smoothing=label_smoothing)


def weights_of(rule: ClassWeights, counts: Sequence[int]) -> Tensor | None:
    """Weights of the classes, (K,) float32.

    Args:
        rule: ``none``; ``balanced``: n / (K n_c), scikit-learn's rule; ``max``: max(n) / n_c; or a list of K numbers.
        counts: training images of each class.

    Raises:
        CxrnetError: the rule is unknown, or the list has the wrong length or a number that is not positive.
    """
    n = torch.tensor(counts, dtype=torch.float32)
    match rule:
        case "none":
            return None
        case "balanced":
            return n.sum() / (len(counts) * n)
        case "max":
            return n.max() / n
        case [*numbers] if len(numbers) == len(counts) and all(isinstance(x, int | float) and x > 0 for x in numbers):
            return torch.tensor(numbers, dtype=torch.float32)
        case [*numbers]:
            raise CxrnetError(
                f"loss.class_weights: {numbers} doesn't fit {len(counts)} classes; give one positive number a class"
            )
    raise CxrnetError(f"loss.class_weights: {rule!r} is not known; use none, balanced, max or a list")
