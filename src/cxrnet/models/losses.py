"""Losses, and how weights and costs that they train with come out of the probabilities again.

A loss in ``conf/loss`` is a function from class names and counts of the training split to a module that takes logits
(N, K) and labels (N,). Settings for single classes are mappings by class name, never lists by position.

Cross-entropy weighted by w_k makes softmax(z)_k proportional to w_k p(k | x), and a sampler that draws class k with r_k
times its share to r_k p(k | x). So z_k - log w_k - log r_k are logits of p(k | x) at the class frequencies of the
training images (Elkan 2001, "The Foundations of Cost-Sensitive Learning", theorem 2; King and Zeng 2001,
doi:10.1093/oxfordjournals.pan.a004868). This offset fits into the last bias. With label smoothing eps the probabilities
are (1 - eps) p + eps / K, as without weights.

The weights w_k r_k go to the decision instead. Costs that depend on the true class alone, C_k, give a weight of C_k:
the expected cost is least at the largest C_k p_k (Elkan, section 2). Costs that depend on the predicted class too are
averaged over the predicted classes, which is exact for two classes.

The focal loss and the expected cost aren't proper scoring rules (Charoenphakdee et al. 2021, arXiv:2011.09172), so no
formula gives their offset. It is fitted: the mean probability over the training images becomes their class frequencies,
as under maximum likelihood. That mends the mean alone, and less of it the more the training images are overfitted.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrnet.errors import CxrnetError
from cxrnet.models.settings import is_number, is_share

if TYPE_CHECKING:
    from cxrnet.models.network import Network

ClassWeights = str | Mapping[str, float]
Costs = Mapping[str, Mapping[str, float]]
FloatArray = npt.NDArray[np.float64]
_ROUNDING = 1e-5  # of log weights: the weights are float32

logger = logging.getLogger("cxrnet")


def cross_entropy(
    classes: Sequence[str], counts: Sequence[int], class_weights: ClassWeights, label_smoothing: float
) -> nn.CrossEntropyLoss:
    """Make cross-entropy, whose mean over a batch is weighted by class (:func:`weights_of`).

    Raises:
        CxrnetError: an argument is out of its range.
    """
    if not is_share(label_smoothing):
        raise CxrnetError(f"loss.label_smoothing: {label_smoothing}; give a number from 0 to 1")
    return nn.CrossEntropyLoss(weights_of(class_weights, classes, counts), label_smoothing=label_smoothing)


def focal(classes: Sequence[str], counts: Sequence[int], class_weights: ClassWeights, gamma: float) -> "FocalLoss":
    """Make the focal loss, in which confident right predictions count little; its gamma is 2 in the paper.

    Raises:
        CxrnetError: an argument is out of its range.
    """
    if not is_number(gamma, 0):
        raise CxrnetError(f"loss.gamma: {gamma}; give 0 (cross-entropy) or more")
    return FocalLoss(gamma, weights_of(class_weights, classes, counts))


def cost_sensitive(
    classes: Sequence[str],
    counts: Sequence[int],
    class_weights: ClassWeights,
    label_smoothing: float,
    weight: float,
    costs: Costs | None,
) -> "CostSensitiveLoss":
    """Make :func:`cross_entropy` plus ``weight`` times the expected cost (:func:`cost_matrix`) of misclassification.

    Raises:
        CxrnetError: an argument is out of its range.
    """
    if not is_number(weight, 0):
        raise CxrnetError(f"loss.weight: {weight}; give 0 (cross-entropy) or more")
    base = cross_entropy(classes, counts, class_weights, label_smoothing)
    return CostSensitiveLoss(base, weight, cost_matrix(costs, classes))


class FocalLoss(nn.Module):
    """Mean of -w_y (1 - p_y)^gamma log p_y, weighted by class (Lin et al. 2017, arXiv:1708.02002, eq. 5).

    The sum is divided by the sum of the weights w_y, so that gamma 0 gives PyTorch's weighted cross-entropy.

    Args:
        gamma: 0 or more.
        class_weights: (K,) float32; ``None`` for equal weights.
    """

    class_weights: Tensor | None

    def __init__(self, gamma: float, class_weights: Tensor | None) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("class_weights", class_weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss () of logits (N, K) and labels (N,)."""
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
        costs: (K, K) float32, the cost of predicting class k (column) for an image of class y (row).
    """

    costs: Tensor

    def __init__(self, base: nn.Module, weight: float, costs: Tensor) -> None:
        super().__init__()
        self.base = base
        self.weight = weight
        self.register_buffer("costs", costs)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss () of logits (N, K) and labels (N,)."""
        expected = (F.softmax(logits.float(), dim=1) * self.costs[labels]).sum(dim=1)
        loss: Tensor = self.base(logits, labels) + self.weight * expected.mean()
        return loss


def weights_of(rule: ClassWeights, classes: Sequence[str], counts: Sequence[int]) -> Tensor | None:
    """Compute class weights, (K,) float32.

    Args:
        rule: ``none``; ``balanced``: n / (K n_c), as scikit-learn; ``max``: max(n) / n_c; or a mapping of class name to
            weight, 1 where a class isn't named.
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
            if any(not (is_number(weight, 0) and weight > 0) for weight in rule.values()):
                raise CxrnetError(f"loss.class_weights: {dict(rule)}; give positive numbers")
            return torch.tensor([rule.get(name, 1.0) for name in classes], dtype=torch.float32)
    raise CxrnetError(
        f"loss.class_weights: {rule!r} is not known; use none, balanced, max or a mapping, as {{{classes[0]}: 2.0}}"
    )


def cost_matrix(costs: Costs | None, classes: Sequence[str]) -> Tensor:
    """Arrange misclassification costs by true class (row) and predicted class (column), (K, K) float32.

    Args:
        costs: ``{COVID: {Normal: 4.0}}``: predicting Normal for a COVID image costs 4. What isn't named costs 1, a
            right prediction nothing; ``None`` names nothing.
        classes: names in the order of the logits.

    Raises:
        CxrnetError: an unknown class, a cost of a right prediction, or a cost that is not 0 or more.
    """
    matrix = 1 - torch.eye(len(classes))
    if costs is None:
        return matrix
    example = f"{{{classes[0]}: {{{classes[1]}: 4.0}}}}"
    if not isinstance(costs, Mapping):
        raise CxrnetError(f"loss.costs: {costs!r}; give true class, predicted class and cost, as {example}")
    _check_names("loss.costs", costs, classes)
    for label, row in costs.items():
        if not isinstance(row, Mapping):
            raise CxrnetError(f"loss.costs.{label}: {row!r}; write it as {example}")
        _check_names(f"loss.costs.{label}", row, classes)
        for name, cost in row.items():
            if name == label or not is_number(cost, 0):
                raise CxrnetError(f"loss.costs.{label}.{name}: {cost}; give another class and a cost of 0 or more")
            matrix[classes.index(label), classes.index(name)] = cost
    return matrix


def cost_offset(
    loss: nn.Module, balanced: bool, counts: Sequence[int], fitted: Callable[[FloatArray], FloatArray]
) -> FloatArray | None:
    """Compute what weighted training added to the logits, (K,), the smallest 0; ``None`` for equal weights.

    Args:
        loss: loss that the network was trained with.
        balanced: the sampler drew all classes equally often.
        counts: training images of each class, in the order of the logits, all above 0.
        fitted: fits the offset from a first guess, (K,), see :func:`cxrnet.evaluation.decision.fitted_offset`; called
            where no formula gives it.
    """
    offset = _log_weights(loss, balanced, counts)
    if np.ptp(offset) < _ROUNDING and not _has_costs(loss):
        return None
    if not isinstance(loss, nn.CrossEntropyLoss):
        offset = fitted(offset)
    return np.asarray(offset - offset.min())


def decision_weights(loss: nn.Module, balanced: bool, counts: Sequence[int], offset: FloatArray) -> FloatArray | None:
    """Compute the weights of the class probabilities in the decision, (K,), the smallest 1; ``None`` for equal ones.

    They are the product of class weights, sampler weights and mean costs of missing a class. No weight above 0 can say
    that missing a class costs nothing; the offset stands in for them then.

    Args:
        loss: loss that the network was trained with.
        balanced: the sampler drew all classes equally often.
        counts: training images of each class, in the order of the logits, all above 0.
        offset: from :func:`cost_offset`, (K,).
    """
    weights = _log_weights(loss, balanced, counts)
    if _has_costs(loss):
        missed = loss.costs.double().cpu().numpy().sum(axis=1)
        if not missed.all():
            logger.warning(
                "loss.costs: missing a class costs nothing, which no decision weight above 0 can say; the decision has "
                "the weights that the training learnt instead"
            )
        weights = weights + np.log(missed) if missed.all() else offset
    return np.exp(weights - weights.min()) if np.ptp(weights) >= _ROUNDING else None


def without_offset(network: "Network", offset: FloatArray) -> "Network":
    """Copy a network and subtract an offset (K,) from its last bias.

    A single sigmoid is the logits [0, z]; it becomes [0, z - (offset_1 - offset_0)].
    """
    copied = copy.deepcopy(network)
    last = [layer for layer in copied.head if isinstance(layer, nn.Linear)][-1]
    part = offset if network.config.output == "softmax" else np.diff(offset)
    with torch.no_grad():
        last.bias.sub_(torch.as_tensor(part, dtype=last.bias.dtype, device=last.bias.device))
    return copied


def corrected_twice(sampler: str, class_weights: ClassWeights) -> list[str]:
    """Warn where a balanced sampler and class weights both correct for rare classes; else an empty list."""
    if sampler != "balanced" or class_weights == "none":
        return []
    return [
        "rare classes are corrected for twice: data.sampler=balanced and loss.class_weights; switch one of them off"
    ]


def weighed_by(sampler: str, loss: Mapping[str, Any]) -> str:
    """Name what weighs the classes in training; empty for nothing.

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
        parts.append("misclassification costs (for each class the mean cost of missing it)")
    return " and ".join(parts)


def _has_costs(loss: nn.Module) -> TypeGuard[CostSensitiveLoss]:
    return isinstance(loss, CostSensitiveLoss) and loss.weight > 0


def _log_weights(loss: nn.Module, balanced: bool, counts: Sequence[int]) -> FloatArray:
    """Log of class weights times sampler weights, (K,), up to a constant."""
    base = loss.base if isinstance(loss, CostSensitiveLoss) else loss
    weights = None
    if isinstance(base, FocalLoss | nn.CrossEntropyLoss):
        weights = base.class_weights if isinstance(base, FocalLoss) else base.weight
    logs = np.zeros(len(counts)) if weights is None else np.log(weights.double().cpu().numpy())
    return logs - np.log(np.asarray(counts, dtype=np.float64)) if balanced else logs


def _check_names(key: str, names: Iterable[str], classes: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in classes]:
        raise CxrnetError(f"{key}: no class is called {unknown[0]!r}; the classes are {', '.join(classes)}")
