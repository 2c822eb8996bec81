"""What weighing classes in training does to the logits, and how the prior goes back into them.

A network that minimises the cross-entropy weighted by w_k has softmax(z)_k proportional to w_k p(k | x), and one that
learns from a sampler that draws class k with r_k times its share to r_k p(k | x): both multiply. So z_k - log w_k -
log r_k are logits of p(k | x) at the mix of the training images (Elkan 2001, "The Foundations of Cost-Sensitive
Learning", theorem 2; King and Zeng 2001, doi:10.1093/oxfordjournals.pan.a004868). The offset is a constant by class, so
it fits into the last bias, and whatever runs the network gives these probabilities. Label smoothing eps stays what it
is without weights: the probabilities are (1 - eps) p + eps / K.

What the decision weighs in their place is what was asked for, w_k r_k. Costs that hang on the class that is missed
alone, C_k, ask for a weight of C_k: the least expected cost is that of the largest C_k p_k (Elkan, section 2). Those
that hang on the predicted class too are taken in the mean over the predicted classes, which is exact for two classes.

The other losses have no such offset: an expected cost beside the cross-entropy is no proper scoring rule, and neither
is the focal loss (Charoenphakdee et al. 2021, arXiv:2011.09172), so their softmax is no function of w_k p(k | x) that a
constant could mend for every image. There the offset is the one that makes the mean probability over the training
images equal to their shares, as a likelihood would have it of the biases. It mends the mean alone, and less of it the
more of the training images are learnt by heart; the temperature mends what it can of the rest.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cxrnet.models.losses import CostSensitiveLoss, FocalLoss
from cxrnet.models.network import Network

FloatArray = npt.NDArray[np.float64]
# Below it classes weigh the same: their weights were computed in float32.
SAME = 1e-5

logger = logging.getLogger("cxrnet")


def cost_offset(
    loss: nn.Module, balanced: bool, counts: Sequence[int], fitted: Callable[[FloatArray], FloatArray]
) -> FloatArray | None:
    """What the training put on the logits of each class, (K,), its smallest 0; ``None`` where classes weigh the same.

    Args:
        loss: that the network was trained with.
        balanced: the sampler drew all classes equally often.
        counts: training images of each class, in the order of the logits, all above 0.
        fitted: from where a search begins, (K,), to the offset by which the mean probability over the training images
            is their shares (:func:`cxrnet.evaluation.prior.fitted_offset`); called where no formula tells the offset.
    """
    offset = _log_weights(loss, len(counts)) - _log_drawn(balanced, counts)
    if np.ptp(offset) < SAME and not _has_costs(loss):
        return None
    if not isinstance(loss, nn.CrossEntropyLoss):
        offset = fitted(offset)
    return np.asarray(offset - offset.min())


def decision_weights(loss: nn.Module, balanced: bool, counts: Sequence[int], offset: FloatArray) -> FloatArray | None:
    """What the decision weighs the probability of each class with, (K,), the smallest 1; ``None`` for equal weights.

    Class weights, those of the sampler and the mean costs of missing a class, multiplied with each other. Where missing
    a class costs nothing, no weight above 0 says so: then it is what the training put on the logits.

    Args:
        loss: that the network was trained with.
        balanced: the sampler drew all classes equally often.
        counts: training images of each class, in the order of the logits, all above 0.
        offset: from :func:`cost_offset`, (K,).
    """
    weights = _log_weights(loss, len(counts)) - _log_drawn(balanced, counts)
    if _has_costs(loss):
        missed = loss.costs.double().cpu().numpy().sum(axis=1)
        if not missed.all():
            logger.warning(
                "loss.costs: missing a class costs nothing, which no decision weight above 0 can say; the decision has "
                "the weights that the training learnt instead"
            )
        weights = weights + np.log(missed) if missed.all() else offset
    return np.exp(weights - weights.min()) if np.ptp(weights) >= SAME else None


def without_offset(network: Network, offset: FloatArray) -> Network:
    """A copy of a network whose last bias lacks an offset: its logits are those of the network less the offset.

    Args:
        network: left as it is. A single sigmoid is the logits [0, z], and gives [0, z - (b_1 - b_0)].
        offset: b, (K,).
    """
    copied = copy.deepcopy(network)
    last = [layer for layer in copied.head if isinstance(layer, nn.Linear)][-1]
    part = offset if network.config.output == "softmax" else np.diff(offset)
    with torch.no_grad():
        last.bias.sub_(torch.as_tensor(part, dtype=last.bias.dtype, device=last.bias.device))
    return copied


def _has_costs(loss: nn.Module) -> TypeGuard[CostSensitiveLoss]:
    return isinstance(loss, CostSensitiveLoss) and loss.weight > 0


def _log_drawn(balanced: bool, counts: Sequence[int]) -> FloatArray:
    """Log of what a balanced sampler divides the share of each class by, (K,), but for a constant."""
    return np.log(np.asarray(counts, dtype=np.float64)) if balanced else np.zeros(len(counts))


def _log_weights(loss: nn.Module, n_classes: int) -> FloatArray:
    """Log of the class weights of a loss, (K,)."""
    match loss:
        case nn.CrossEntropyLoss():
            weights = loss.weight
        case FocalLoss():
            weights = loss.class_weights
        case CostSensitiveLoss():
            return _log_weights(loss.base, n_classes)
        case _:
            weights = None
    return np.zeros(n_classes) if weights is None else np.log(weights.double().cpu().numpy())
