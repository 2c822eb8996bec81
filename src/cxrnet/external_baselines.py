"""Trivial baselines on external data: what a network is worth there can only be seen beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from sklearn.pipeline import Pipeline

from cxrnet.data.overlap import KnownImages
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.prior import Mix
from cxrnet.external_sets import ExternalSet
from cxrnet.training.baselines import majority_logits, thumbnail_model, thumbnails


@dataclass(frozen=True)
class ExternalBaselines:
    """The baselines of a bundle's run.

    Attributes:
        classes: of the bundle.
        counts: of each class, the training images of the run; empty where they aren't known.
        thumbnails: the linear model on their thumbnails; ``None`` where they can't be read.
        gap: which of the two is missing and why; empty where none is.
    """

    classes: Sequence[str]
    counts: Sequence[int]
    thumbnails: Pipeline | None
    gap: str


def fit_baselines(known: KnownImages | None, classes: Sequence[str]) -> ExternalBaselines:
    """Fit the baselines on the training images of a bundle's run, read at the size at which copies are looked for.

    Args:
        known: the images of the run; ``None`` where they aren't known.
        classes: of the bundle.
    """
    if known is None:
        return ExternalBaselines(classes, [], None, "the images that the bundle was made with are not known")
    rows = known.manifest[known.manifest["split"] == "train"]
    counts = [int((rows["label"] == name).sum()) for name in classes]
    there = (known.readable["split"] == "train").to_numpy(bool)
    if lost := len(rows) - int(there.sum()):
        return ExternalBaselines(
            classes, counts, None, f"no thumbnails, as {lost} of {len(rows)} training images can't be read any more"
        )
    labels = known.readable.loc[there, "label"].map({name: place for place, name in enumerate(classes)})
    model = thumbnail_model(known.images.take(there), labels.to_numpy("int64"))
    return ExternalBaselines(classes, counts, model, "")


def predict_baselines(baselines: ExternalBaselines, each: ExternalSet, mix: Mix) -> dict[str, pd.DataFrame]:
    """Predictions of the baselines that there are, ``majority`` and ``thumbnail``, on one data set, at a mix."""
    shift = mix.shift(baselines.classes)
    logits = {"majority": majority_logits(baselines.counts, len(each.manifest))} if baselines.counts else {}
    if baselines.thumbnails is not None:
        logits["thumbnail"] = baselines.thumbnails.predict_log_proba(thumbnails(each.small))
    return {
        name: make_predictions(each.manifest, baselines.classes, values.astype("float32"), shift=shift)
        for name, values in logits.items()
    }
