"""A bundle and images in, predictions out: the one way in which anything predicts."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cxrnet.data.images.decode import read_image
from cxrnet.data.images.reader import Images, resize
from cxrnet.data.images.store import binary_warning, look_binary, stream_images
from cxrnet.data.inputs import opened_input
from cxrnet.data.settings import OnError
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import DecisionRule, Mix, decision_text, listed, threshold_sentence
from cxrnet.evaluation.predictions import CERTAINTY, INVERTED, TURNED_AWAY, make_predictions
from cxrnet.models.bundle import Bundle
from cxrnet.models.fusion import fused

_BATCHES = 8  # that are read at a time

logger = logging.getLogger("cxrnet")

BoolArray = npt.NDArray[np.bool_]
Logits = Callable[[Images], np.ndarray]


def predictor(bundle: Bundle, batch_size: int, device: torch.device) -> Logits:
    """Make a function from N images, which have the bundle's size, to their logits at the training prevalences.

    It computes in float32 whatever the network was trained in: in bfloat16 the features of MobileNetV2 move by 14 %
    (relative L2). Batch norms are fused, which changes the logits by rounding errors.

    Args:
        bundle: left as it is.
        batch_size: images a forward pass.
        device: where the network runs.

    Returns:
        A function whose result is (N, K) float32, divided by the bundle's temperature.
    """
    network = fused(bundle.network).to(device)

    def logits(images: Images) -> np.ndarray:
        table: np.ndarray = torch.cat(_forward(network, images, batch_size, device)).cpu().numpy() / bundle.temperature
        return table

    return logits


@torch.inference_mode()
def _forward(
    part: Callable[[torch.Tensor], torch.Tensor], images: Images, batch_size: int, device: torch.device
) -> list[torch.Tensor]:
    starts = range(0, len(images), batch_size)
    with ieee_convolutions():
        return [part(torch.from_numpy(images[at : at + batch_size]).unsqueeze(1).to(device)) for at in starts]


@contextmanager
def ieee_convolutions() -> Iterator[None]:
    """Let cuDNN compute float32 convolutions as such: torch lets it round their inputs to TensorFloat-32 otherwise."""
    cudnn = torch.backends.cudnn
    # What isn't named here would get the defaults of `flags`.
    others = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    with cudnn.flags(**others, allow_tf32=False):
        yield


def predict_images(bundle: Bundle, images: Images, batch_size: int, device: torch.device) -> np.ndarray:
    """Return logits (N, K) of images that have the bundle's size, see :func:`predictor`."""
    return predictor(bundle, batch_size, device)(images)


def image_features(bundle: Bundle, images: Images, batch_size: int, device: torch.device) -> list[torch.Tensor]:
    """Return what the head of a bundle's network works on, (B, F) for each batch, on the device; see :func:`predictor`.

    :func:`head_logits` makes logits of it, also for a bundle that differs in its head and its temperature alone.
    """
    return _forward(fused(bundle.network).to(device).features, images, batch_size, device)


def featurer(bundle: Bundle, batch_size: int, device: torch.device) -> Logits:
    """Make a function from N images, which have the bundle's size, to what its head works on, ``(N, F) float32``.

    The network is fused once, for many calls; see :func:`predictor`.
    """
    features = fused(bundle.network).to(device).features

    def compute(images: Images) -> np.ndarray:
        table: np.ndarray = torch.cat(_forward(features, images, batch_size, device)).cpu().numpy()
        return table

    return compute


@torch.inference_mode()
def head_logits(bundle: Bundle, features: Sequence[torch.Tensor]) -> np.ndarray:
    """Return logits (N, K) float32 of :func:`image_features`, to the last bit those of :func:`predictor`."""
    head = copy.deepcopy(bundle.network.head).eval().to(features[0].device)
    with ieee_convolutions():
        table: np.ndarray = torch.cat([head(batch) for batch in features]).cpu().numpy() / bundle.temperature
    return table


def rule_of(bundle: Bundle) -> DecisionRule:
    """Return the rule that turns the probabilities of a bundle into predictions."""
    return DecisionRule(bundle.operating_points, bundle.decision_weights, bundle.defer_below)


def predictions_of(bundle: Bundle, rows: pd.DataFrame, logits: np.ndarray, mix: Mix | None = None) -> pd.DataFrame:
    """Put logits (N, K) of :func:`predictor` for rows of a manifest into a table of predictions.

    The probabilities are of ``mix``; ``None`` leaves them at the training prevalences.
    """
    shift = None if mix is None else mix.shift(bundle.classes)
    return make_predictions(rows, bundle.classes, logits, rule_of(bundle), shift)


def mix_facts(bundle: Bundle, mix: Mix) -> dict[str, str]:
    """Say which mix of classes the probabilities of a bundle are of, and what else decides."""
    facts, rule = {"probabilities": str(mix)}, rule_of(bundle)
    chosen = [f"a class is predicted from this probability on: {listed(rule.points)}"] if rule.points else []
    kept = threshold_sentence(mix, rule.points, rule.defer_below is not None)
    if said := chosen + ([kept] if kept else []):
        facts["thresholds"] = "; ".join(said)
    if rule.weights is not None:
        facts["decision"] = decision_text(rule.weights, rule.points)
    if rule.defer_below is not None:
        facts["deferral"] = (
            f"predictions are deferred where their {rule.certainty_name} is below {rule.defer_below:.4g}"
        )
    return facts


def mix_tags(bundle: Bundle, mix: Mix) -> dict[str, str]:
    """Return tags for MLflow: the prior that the probabilities are of, and the decision weights if there are any."""
    known = {"cxrnet.prior": mix.shares, "cxrnet.decision_weights": bundle.decision_weights}
    return {name: listed(numbers) for name, numbers in known.items() if numbers is not None}


class Judged(NamedTuple):
    """What a bundle makes of N images.

    Attributes:
        logits: ``(N, K) float32``, as :func:`predictor` computes them, to the last bit.
        turned_away: whether the gate turns an image away, ``(N,)``; none where there is no gate.
        inverted: whether it would not turn the image's negative away, ``(N,)``.
    """

    logits: np.ndarray
    turned_away: BoolArray
    inverted: BoolArray

    def mark(self, table: pd.DataFrame) -> pd.DataFrame:
        """Take the class of the images that are turned away out of a table of predictions of these images."""
        told = [name for name in table if name.startswith(("prob_", "logit_")) or name in ("predicted", CERTAINTY)]
        marks = {TURNED_AWAY: self.turned_away, INVERTED: self.inverted}
        return table.assign(**{name: table[name].mask(self.turned_away) for name in told}, **marks)


def judge(bundle: Bundle, batch_size: int, device: torch.device) -> Callable[[Images], Judged]:
    """Make a function from N images, which have the bundle's size, to logits and what its gate says of them.

    The network is fused once, for many calls; see :func:`predictor`.
    """
    network, gate = fused(bundle.network).to(device), bundle.gate

    def strange(images: Images, features: list[torch.Tensor]) -> BoolArray:
        if gate is None or not features:
            return np.zeros(len(images), bool)
        return np.concatenate([gate.turns_away(batch.float().cpu().numpy()) for batch in features])

    @torch.inference_mode()
    def compute(images: Images) -> Judged:
        features = _forward(network.features, images, batch_size, device)
        with ieee_convolutions():
            batches = [network.head(batch) for batch in features]
        logits = torch.cat(batches).cpu().numpy() / bundle.temperature
        away = strange(images, features)
        inverted = np.zeros(len(images), bool)
        if len(places := np.flatnonzero(away)):
            negatives = Images.all_of(255 - images[places])
            inverted[places] = ~strange(negatives, _forward(network.features, negatives, batch_size, device))
        return Judged(logits, away, inverted)

    return compute


def predict_manifest(
    bundle: Bundle,
    manifest: pd.DataFrame,
    batch_size: int,
    device: torch.device,
    on_error: OnError,
    mix: Mix | None = None,
    gate: bool = False,
) -> Iterator[pd.DataFrame]:
    """Predict the images of a manifest, decoded and resized as the bundle says; yield tables in its order.

    No image is kept. Beside an accelerator the next ones are read while the network works; on the CPU reading and the
    network take turns. With ``gate`` the columns ``turned_away`` and ``inverted`` follow, and an image that is turned
    away has no class and no probabilities.

    Raises:
        CxrnetError: images can't be read (see :func:`cxrnet.data.images.store.stream_images`).
    """
    compute, size = (
        judge(bundle if gate else replace(bundle, gate=None), batch_size, device),
        bundle.network.config.size,
    )
    ahead = device.type != "cpu"
    odd: list[str] = []
    for rows, images in stream_images(manifest, size, bundle.resize, on_error, _BATCHES * batch_size, ahead):
        odd += rows["image_id"][look_binary(images[:])].tolist()
        judged = compute(images)
        table = predictions_of(bundle, rows, judged.logits, mix)
        yield judged.mark(table) if gate else table
    for text in binary_warning(odd, len(manifest)):
        logger.warning(text)


def predict_files(
    bundle: Bundle,
    path: str | Path,
    batch_size: int,
    device: torch.device,
    on_error: OnError,
    mix: Mix | None = None,
    gate: bool = False,
) -> Iterator[pd.DataFrame]:
    """Predict every image of an input; yield tables, whose labels are empty.

    Args:
        bundle: predicts.
        path: an image file, a folder, a pattern or a zip archive (:func:`cxrnet.data.inputs.opened_input`).
        batch_size: images a forward pass.
        device: where the network runs.
        on_error: see :func:`cxrnet.data.images.store.stream_images`.
        mix: of classes, that the probabilities are of.
        gate: whether images that don't look like those of the training are turned away.

    Raises:
        CxrnetError: there is nothing at the path, no image in it, an image can't be read, or the batch size is no such
            number.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise CxrnetError(f"batch_size: {batch_size} is no number of images; give a whole number from 1 on")
    with opened_input(str(path)) as found:
        for table in predict_manifest(bundle, found.manifest, batch_size, device, on_error, mix, gate):
            yield found.shown(table)


def read_bytes(bundle: Bundle, files: Sequence[bytes], names: Sequence[str]) -> Images:
    """Read image files held in memory, at the size and by the rule of a bundle.

    Raises:
        CxrnetError: a file is not a readable image; ``names`` are for its message.
    """
    size = bundle.network.config.size
    pairs = zip(files, names, strict=True)
    return Images.all_of(np.stack([resize(read_image(data, name), size, bundle.resize) for data, name in pairs]))
