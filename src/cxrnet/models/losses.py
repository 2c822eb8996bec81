"""Losses: functions from class names and counts of the training split to a module of logits (N, K) and labels (N,).

Class weights and costs say what mistakes cost. The bundle takes them out of the probabilities again and gives them to
the decision (:mod:`cxrnet.models.costs`).

Settings for single classes are mappings by class name, never lists by position.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrnet.errors import CxrnetError

ClassWeights = str | Mapping[str, float]
Costs = Mapping[str, Mapping[str, float]]


def cross_entropy(
    classes: Sequence[str], counts: Sequence[int], class_weights: ClassWeights, label_smoothing: float
) -> nn.CrossEntropyLoss:
    """Cross-entropy, its mean over a batch weighted by class.

    Args:
        classes: names in the order of the logits.
        counts: training images of each class.
        class_weights: see :func:`weights_of`.
        label_smoothing: 0 (off) to 1.

    Raises:
        CxrnetError: the class weights (see :func:`weights_of`) or the smoothing are not usable.
    """
    if not _is_number(label_smoothing) or label_smoothing > 1:
        raise CxrnetError(f"loss.label_smoothing: {label_smoothing} is no share; give a number from 0 to 1")
    return nn.CrossEntropyLoss(weights_of(class_weights, classes, counts), label_smoothing=label_smoothing)


def focal(classes: Sequence[str], counts: Sequence[int], class_weights: ClassWeights, gamma: float) -> "FocalLoss":
    """Focal loss: images that are called right with confidence count little.

    Args:
        classes: names in the order of the logits.
        counts: training images of each class.
        class_weights: see :func:`weights_of`.
        gamma: 0 is cross-entropy; 2 in the paper.

    Raises:
        CxrnetError: the class weights (see :func:`weights_of`) or gamma are not usable.
    """
    if not _is_number(gamma):
        raise CxrnetError(f"loss.gamma: {gamma} is no focus; give 0 (cross-entropy) or more")
    return FocalLoss(gamma, weights_of(class_weights, classes, counts))


def cost_sensitive(
    classes: Sequence[str],
    counts: Sequence[int],
    class_weights: ClassWeights,
    label_smoothing: float,
    weight: float,
    costs: Costs | None,
) -> "CostSensitiveLoss":
    """Cross-entropy plus the expected cost of the mistakes.

    Args:
        classes: names in the order of the logits.
        counts: training images of each class.
        class_weights: of the cross-entropy alone, see :func:`weights_of`.
        label_smoothing: of the cross-entropy alone, 0 (off) to 1.
        weight: of the expected cost beside the cross-entropy; 0 is cross-entropy.
        costs: see :func:`cost_matrix`.

    Raises:
        CxrnetError: a setting is not usable.
    """
    if not _is_number(weight):
        raise CxrnetError(f"loss.weight: {weight} is no weight; give 0 (cross-entropy) or more")
    base = cross_entropy(classes, counts, class_weights, label_smoothing)
    return CostSensitiveLoss(base, weight, cost_matrix(costs, classes))


class FocalLoss(nn.Module):
    """Mean of -w_y (1 - p_y)^gamma log p_y, weighted by class (Lin et al. 2017, arXiv:1708.02002, eq. 5).

    The sum is divided by the sum of the weights w_y, so that gamma 0 gives PyTorch's weighted cross-entropy.

    Args:
        gamma: 0 or more.
        class_weights: (K,) float32; ``None`` weighs all alike.
    """

    class_weights: Tensor | None

    def __init__(self, gamma: float, class_weights: Tensor | None) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("class_weights", class_weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss () of logits (N, K) and labels (N,)."""
        log_p = F.log_softmax(logits.float(), dim=1).gather(1, labels[:, None])[:, 0]
        # 1 - p_y by expm1, because 1 - exp(log_p) of float32 is 0 long before p_y is 1; and a floor, because at 0 the
        # slope of a power below 1 is infinite.
        miss = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        losses = -(miss**self.gamma) * log_p
        if self.class_weights is None:
            return losses.mean()
        weights = self.class_weights[labels]
        return (weights * losses).sum() / weights.sum()


class CostSensitiveLoss(nn.Module):
    """A loss plus ``weight`` times the mean of sum_k p_k C[y, k] (Galdran et al. 2020, arXiv:2010.00291).

    Args:
        base: takes logits and labels.
        weight: 0 or more.
        costs: (K, K) float32, what it costs to call an image of class y (row) class k (column).
    """

    costs: Tensor

    def __init__(self, base: nn.Module, weight: float, costs: Tensor) -> None:
        super().__init__()
        self.base = base
        self.weight = weight
        self.register_buffer("costs", costs)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss () of logits (N, K) and labels (N,)."""
        expected = (F.softmax(logits.float(), dim=1) * self.costs[labels]).sum(dim=1)
        loss: Tensor = self.base(logits, labels) + self.weight * expected.mean()
        return loss


def weights_of(rule: ClassWeights, classes: Sequence[str], counts: Sequence[int]) -> Tensor | None:
    """Weights of the classes, (K,) float32.

    Args:
        rule: ``none``; ``balanced``: n / (K n_c), scikit-learn's rule; ``max``: max(n) / n_c; or a mapping of class
            name to weight, in which a class that is not named weighs 1.
        classes: names in the order of the logits.
        counts: training images of each class.

    Raises:
        CxrnetError: the rule is unknown, or the mapping has an unknown class or a weight that is not positive.
    """
    n = torch.tensor(counts, dtype=torch.float32)
    match rule:
        case "none":
            return None
        case "balanced":
            return n.sum() / (len(counts) * n)
        case "max":
            return n.max() / n
        case Mapping():
            _check_names("loss.class_weights", rule, classes)
            if any(not _is_number(weight) or weight == 0 for weight in rule.values()):
                raise CxrnetError(f"loss.class_weights: {dict(rule)}; give positive numbers")
            return torch.tensor([rule.get(name, 1.0) for name in classes], dtype=torch.float32)
    raise CxrnetError(
        f"loss.class_weights: {rule!r} is not known; use none, balanced, max or a mapping, as {{{classes[0]}: 2.0}}"
    )


def cost_matrix(costs: Costs | None, classes: Sequence[str]) -> Tensor:
    """What it costs to call an image of one class (row) another (column), (K, K) float32.

    Args:
        costs: ``{COVID: {Normal: 4.0}}``: calling a COVID image Normal costs 4. What is not named costs 1,
            what is right nothing; ``None`` names nothing.
        classes: names in the order of the logits.

    Raises:
        CxrnetError: an unknown class, a cost for being right, or one that is not 0 or more.
    """
    matrix = 1 - torch.eye(len(classes))
    if costs is None:
        return matrix
    if not isinstance(costs, Mapping):
        raise CxrnetError(
            f"loss.costs: {costs!r} is no mapping; give class, called class and cost, as {_example(classes)}"
        )
    _check_names("loss.costs", costs, classes)
    for label, called in costs.items():
        if not isinstance(called, Mapping):
            raise CxrnetError(f"loss.costs.{label}: {called!r} is no mapping; write it as {_example(classes)}")
        _check_names(f"loss.costs.{label}", called, classes)
        for name, cost in called.items():
            if name == label or not _is_number(cost):
                raise CxrnetError(f"loss.costs.{label}.{name}: {cost}; give another class and a cost of 0 or more")
            matrix[classes.index(label), classes.index(name)] = cost
    return matrix


def corrected_twice(sampler: str, class_weights: ClassWeights) -> list[str]:
    """A warning, or none: the balanced sampler and class weights both make up for rare classes."""
    if sampler != "balanced" or class_weights == "none":
        return []
    return [
        "rare classes are corrected for twice: data.sampler=balanced and loss.class_weights; switch one of them off"
    ]


def weighed_by(sampler: str, loss: Mapping[str, Any]) -> str:
    """What weighs the classes in training, in words; empty where nothing does.

    Args:
        sampler: ``shuffle`` or ``balanced``.
        loss: the group of the configuration.
    """
    rule = loss.get("class_weights", "none")
    parts = ["a balanced sampler"] if sampler == "balanced" else []
    if rule != "none":
        named = rule if isinstance(rule, str) else ", ".join(f"{name} {weight:g}" for name, weight in rule.items())
        parts.append(f"class weights {named}")
    if "costs" in loss and loss["weight"] > 0:
        parts.append("costs of mistakes, of each class the mean of missing it")
    return " and ".join(parts)


def _check_names(key: str, names: Iterable[str], classes: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in classes]:
        raise CxrnetError(f"{key}: no class is called {unknown[0]!r}; the classes are {', '.join(classes)}")


def _example(classes: Sequence[str]) -> str:
    return f"{{{classes[0]}: {{{classes[1]}: 4.0}}}}"


def _is_number(value: object) -> bool:
    """Whether it is a finite number from 0 on."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
