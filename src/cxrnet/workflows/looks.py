"""The looks of an audit: probes of the images, the model on changed images, regions planted in other images.

Every function takes :class:`AuditImages` and gives numbers of :mod:`cxrnet.evaluation.audit`, and says in sentences
what could not be looked at.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cxrnet.core.console import bar
from cxrnet.core.grouping import link
from cxrnet.data import interventions
from cxrnet.data.acquisition import PIXELS, measure_acquisition
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import Images
from cxrnet.data.regions import BoolArray, Masks, all_corners, border, corners, corners_together, enlarged
from cxrnet.evaluation.audit import (
    ACQUISITION,
    BORDER,
    CORNERS,
    LUNGS_ONLY,
    LUNGS_OUT,
    OUTLINE,
    SHARPNESS,
    THUMBNAIL,
    WHOLE,
    Look,
    Sampling,
    change_table,
    planted_looks,
    region_looks,
)
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.probes import STRENGTH, TIES, ProbeError, probe
from cxrnet.inference import featurer, predictions_of, predictor
from cxrnet.models.bundle import Bundle
from cxrnet.training.baselines import thumbnails

_BLOCK = 256  # images changed at a time
_FEATURES = 0.01  # C of a linear head on the features of a network, which are more than the images

_OF_DISEASE = ("mean", "sd", "sharpness")  # columns of the acquisition that it may change
REGIONS: Mapping[str, Callable[[tuple[int, int]], BoolArray]] = {"corners": all_corners, "border": border}
"""What is planted in other images."""

Change = Callable[[UInt8Array, Masks], UInt8Array]
"""From images to changed ones; the masks are those of the same images."""


@dataclass(frozen=True)
class AuditImages:
    """N images that are looked at.

    Attributes:
        rows: of a manifest, labelled in the bundle's classes, read.
        images: ``(N, H, W)`` at the bundle's size.
        plain: the same, stretched straight from the files to one size.
        lungs: their lungs.
    """

    rows: pd.DataFrame
    images: Images
    plain: Images
    lungs: Masks

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: npt.NDArray[np.generic]) -> "AuditImages":
        """Choose images by place, or by a mask ``(N,)``."""
        rows = self.rows.iloc[chosen].reset_index(drop=True)
        return AuditImages(rows, self.images.take(chosen), self.plain.take(chosen), self.lungs.take(chosen))

    @property
    def with_lungs(self) -> "AuditImages":
        """Those whose lungs are known; all of them where they all are."""
        return self if self.lungs.known.all() else self.take(self.lungs.known)


@dataclass
class Found:
    """The looks at some images, and what could not be looked at, in sentences."""

    looks: list[Look] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Model:
    """A bundle at work: its features and its logits, of images of its size."""

    bundle: Bundle
    features: Callable[[Images], np.ndarray]
    logits: Callable[[Images], np.ndarray]

    @classmethod
    def of(cls, bundle: Bundle, batch_size: int, device: torch.device) -> "Model":
        """Put a bundle to work."""
        return cls(bundle, featurer(bundle, batch_size, device), predictor(bundle, batch_size, device))

    def predict(self, data: AuditImages, change: Change | None = None, what: str = "") -> pd.DataFrame:
        """Predict images, changed or as they are, by the bundle's own rule."""
        return predictions_of(self.bundle, data.rows, _applied(self.logits, data, change, what or "predicting"))


def _applied(
    network: Callable[[Images], np.ndarray], data: AuditImages, change: Change | None, what: str
) -> np.ndarray:
    """Apply a network to images, changed block by block, so that no second set of them is in memory."""
    parts = []
    with bar(what, len(data)) as advance:
        for start in range(0, len(data), _BLOCK):
            chosen = slice(start, min(start + _BLOCK, len(data)))
            images = data.images[np.arange(chosen.start, chosen.stop)]
            if change is not None:
                images = change(images, data.lungs.take(np.arange(chosen.start, chosen.stop)))
            parts.append(network(Images.all_of(np.ascontiguousarray(images))))
            advance(len(images))
    return np.concatenate(parts)


def _on_all(change: interventions.Change) -> Change:
    return lambda images, _lungs: change(images)


def _without_lungs(images: UInt8Array, lungs: Masks) -> UInt8Array:
    return interventions.blacked_out(images, lungs.cover)


def _lungs_only(images: UInt8Array, lungs: Masks) -> UInt8Array:
    return interventions.kept_only(images, lungs.array)


def _outline(_images: UInt8Array, lungs: Masks) -> UInt8Array:
    return np.where(lungs.cover, np.uint8(255), np.uint8(0))


def _border_only(images: UInt8Array, _lungs: Masks) -> UInt8Array:
    return interventions.kept_only(images, border((images.shape[1], images.shape[2])))


def probe_looks(data: AuditImages, model: Model, sampling: Sampling) -> Found:
    """Look at what a linear model tells the classes from: regions, simple numbers, source and view."""
    found, classes = Found(), model.bundle.classes
    data, gaps = _probable(data)
    learn = partial(probe, classes=classes, seed=sampling.seed)

    def seen(some: AuditImages, change: Change | None, name: str) -> pd.DataFrame:
        return learn(_applied(model.features, some, change, f"probing: {name}"), some.rows, strength=_FEATURES)

    try:
        whole = seen(data, None, WHOLE)
    except ProbeError as error:
        found.gaps = [f"no probes: {str(error).removeprefix('probe: ')}"]
        return found
    regions = {
        BORDER: seen(data, _border_only, BORDER),
        CORNERS: seen(data, _on_all(corners_together), CORNERS),
    }
    numbers, without = _numbers(data)
    found.gaps += gaps + without
    for name, columns in numbers.items():
        regions[name] = learn(columns, data.rows, strength=STRENGTH)
    some, gaps = _probable(data.with_lungs)
    found.gaps += [f"of those with a mask: {gap}" for gap in gaps]
    changes: dict[str, Change] = {LUNGS_OUT: _without_lungs, LUNGS_ONLY: _lungs_only}
    if data.lungs.kind == "masks":
        changes[OUTLINE] = _outline
    try:
        of_lungs = {name: seen(some, change, name) for name, change in changes.items()}
        if some is data:
            regions = {**of_lungs, **regions}
        else:
            found.looks += region_looks("data", seen(some, None, WHOLE), of_lungs, sampling)
    except ProbeError as error:
        found.gaps.append(f"no probes of the lungs: {str(error).removeprefix('probe: ')}")
    found.looks += region_looks("data", whole, regions, sampling)
    return found


def _probable(data: AuditImages) -> tuple[AuditImages, list[str]]:
    """Leave out classes of a single patient, of which no probe can learn, where two others are left; and say so."""
    clusters = pd.Series(link(data.rows, TIES))
    counts = clusters.groupby(data.rows["label"].to_numpy()).nunique()
    lone = [str(name) for name in counts.index[counts < 2]]
    if not lone or len(counts) - len(lone) < 2:
        return data, []
    gaps = [f"no probes of {name}: all its images are of one patient, or duplicates" for name in lone]
    return data.take(~data.rows["label"].isin(lone).to_numpy(bool)), gaps


def _numbers(data: AuditImages) -> tuple[dict[str, npt.NDArray[np.floating]], list[str]]:
    """Collect the simple numbers of each image, ``(N, D)`` by name; and what there is nothing to probe of."""
    measured = measure_acquisition(data.plain, data.rows)
    technique = [name for name in measured if name not in _OF_DISEASE]
    numbers = {
        ACQUISITION: measured[technique].to_numpy(),
        SHARPNESS: measured[[name for name in PIXELS if name in _OF_DISEASE]].to_numpy(),
        THUMBNAIL: thumbnails(data.images),
    }
    gaps = []
    for column in ("source", "view"):
        values = data.rows[column].fillna("not known")
        if values.nunique() > 1:
            numbers[column] = pd.get_dummies(values).to_numpy(np.float64)
        else:
            only = values.iloc[0]
            known = "is not known of any image" if only == "not known" else f"is '{only}' for all images"
            gaps.append(f"no probe of the {column}: it {known}")
    return numbers, gaps


def telling_corner(data: AuditImages, model: Model, sampling: Sampling, label: str) -> str:
    """Name the corner from which a class is told best: by the same probe, each corner enlarged."""
    found = {}
    for name, region in corners(model.bundle.network.config.size).items():
        change = _on_all(partial(enlarged, region=region))
        features = _applied(model.features, data, change, f"probing: corner {name}")
        table = probe(features, data.rows, model.bundle.classes, _FEATURES, seed=sampling.seed)
        found[name] = evaluate(table)["per_class"][label]["roc_auc"]["value"]
    return max(found, key=lambda name: found[name])


def model_looks(data: AuditImages, model: Model, sampling: Sampling) -> tuple[Found, pd.DataFrame]:
    """Look at the bundle's own predictions: lungs out, interventions, planted regions.

    Returns:
        The looks, and the table of :func:`cxrnet.evaluation.audit.change_table`.
    """
    found, before = Found(), model.predict(data)
    after = {
        name: model.predict(data, _on_all(change), f"predicting: {name}")
        for name, change in interventions.ON_ALL.items()
    }
    some = data.with_lungs
    if data.lungs.known.any():
        regions = {
            LUNGS_OUT: model.predict(some, _without_lungs, f"predicting: {LUNGS_OUT}"),
            LUNGS_ONLY: model.predict(some, _lungs_only, f"predicting: {LUNGS_ONLY}"),
        }
        whole = before[data.lungs.known].reset_index(drop=True)
        found.looks += region_looks("model", whole, regions, sampling)
        after = {LUNGS_OUT: regions[LUNGS_OUT], **after}
    else:
        found.gaps.append("the model was not looked at with the lungs out: no test image has a mask")
    if some is not data:
        found.looks += region_looks("model", before, {}, sampling)
    for name, shape in REGIONS.items():
        planted, gaps = _planted(data, model, before, (name, shape(model.bundle.network.config.size)), sampling)
        found.looks += planted
        found.gaps += [gap for gap in gaps if gap not in found.gaps]
    return found, change_table(before, after, sampling)


def _planted(
    data: AuditImages, model: Model, before: pd.DataFrame, region: tuple[str, BoolArray], sampling: Sampling
) -> tuple[list[Look], list[str]]:
    """Plant a region of images of each class in the others, and of the own class as a control."""
    name, marked = region
    classes = list(model.bundle.classes)
    labels = data.rows["label"].map({label: place for place, label in enumerate(classes)}).to_numpy(np.int64)
    clusters = link(data.rows, ("patient_id", "group_id"))
    there = np.unique(labels)
    if len(there) < 2:
        return [], [f"nothing was planted: all images are of {classes[there[0]]}"]

    def predicted(of: npt.NDArray[np.int64], what: str) -> npt.NDArray[np.object_]:
        donors = interventions.choose_donors(labels, clusters, of, sampling.seed)
        logits = []
        with bar(f"planting: {name} of {what}", len(data)) as advance:
            for start in range(0, len(data), _BLOCK):
                places = np.arange(start, min(start + _BLOCK, len(data)))
                changed = interventions.planted(data.images[places], data.images[donors[places]], marked)
                logits.append(model.logits(Images.all_of(changed)))
                advance(len(places))
        table = predictions_of(model.bundle, data.rows, np.concatenate(logits))
        return np.asarray(table["predicted"], object)

    own = predicted(labels, "the own class")
    foreign = {classes[label]: predicted(np.full(len(labels), label), classes[label]) for label in there}
    return planted_looks(name, before, foreign, own, sampling), []
