"""A bundle on one external data set: its predictions, their results, and the internal figures beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from rich import get_console
from rich.markup import escape

from cxrnet.audit.conflicts import write_conflicts
from cxrnet.configuration import Config
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.evaluation.analysis import evaluator
from cxrnet.evaluation.generalisation import same_classes, shared_classes
from cxrnet.evaluation.metrics import Evaluation
from cxrnet.evaluation.prior import Mix
from cxrnet.evaluation.report import thumbnail_verdict
from cxrnet.external_baselines import ExternalBaselines, predict_baselines
from cxrnet.external_sets import ExternalSet
from cxrnet.inference import predict_images, predictions_of
from cxrnet.models.bundle import Bundle, device_of
from cxrnet.origin import Origin
from cxrnet.results import Results, figures_of, write_results
from cxrnet.tracking.tracked import TrackedRun


@dataclass(frozen=True)
class Tested:
    """What came of one data set.

    Attributes:
        results: on it.
        external: its figures, means over the classes ``over``.
        internal: the same on the bundle's own test images of these classes; ``None`` where there are none.
        over: the classes that both have.
        baselines: as ``external``, by name of the baseline.
    """

    results: Results
    external: Evaluation
    internal: Evaluation | None
    over: list[str]
    baselines: dict[str, Evaluation]


def evaluate_set(
    each: ExternalSet,
    origin: Origin,
    mix: Mix,
    baselines: ExternalBaselines,
    config: Config,
    folder: Path,
    run: TrackedRun,
) -> Tested:
    """Evaluate on one data set; means over classes are over those that it has, and the internal test images too.

    Args:
        each: the data set, copies taken out.
        origin: the bundle and its own test result, at the same mix.
        mix: that the probabilities are of.
        baselines: of the bundle's run.
        config: plain, of the command.
        folder: of this data set; it is made.
        run: that tracks the evaluation.
    """
    predictions, trivial = _predict(origin.bundle, mix, each, config), predict_baselines(baselines, each, mix)
    results = _results(each, predictions, trivial, origin.bundle, mix, config, folder, run)
    own = None if origin.test is None else same_classes(origin.test, predictions)
    own = own if own is not None and len(own) else None
    over = shared_classes(own, predictions)
    evaluated = partial(evaluator(config["evaluation"]), over=over)
    whole = len(over) == len(origin.bundle.classes)
    return Tested(
        results,
        results.metrics["test"] if whole else evaluated(predictions),
        None if own is None else evaluated(own),
        over,
        results.baselines if whole else {name: evaluated(table) for name, table in trivial.items()},
    )


def thumbnail_warnings(tested: Mapping[str, Tested]) -> list[str]:
    """On which data the network does not beat the thumbnails."""
    both = {
        name: (each.external, each.baselines["thumbnail"])
        for name, each in tested.items()
        if "thumbnail" in each.baselines
    }
    found = {name: thumbnail_verdict(network, thumbnail) for name, (network, thumbnail) in both.items()}
    return [f"{name}: {verdict.removesuffix('.')}" for name, verdict in found.items() if verdict]


def _predict(bundle: Bundle, mix: Mix, each: ExternalSet, config: Config) -> pd.DataFrame:
    with get_console().status(escape(f"predicting {each.name}")):
        logits = predict_images(bundle, each.images, config["batch_size"], device_of(config["device"]))
    return predictions_of(bundle, each.manifest, logits, mix)


def _results(
    each: ExternalSet,
    predictions: pd.DataFrame,
    baselines: Mapping[str, pd.DataFrame],
    bundle: Bundle,
    mix: Mix,
    config: Config,
    folder: Path,
    run: TrackedRun,
) -> Results:
    """Write what there is to say of one data set, and tell MLflow."""
    folder.mkdir()
    write_manifest(each.manifest, folder / "manifest.parquet")
    write_conflicts(each.within, each.manifest, folder)
    results = write_results(
        folder,
        predictions,
        baselines,
        bundle.classes,
        config["evaluation"],
        temperature=bundle.temperature,
        mix=mix,
        offset=bundle.temperature_offset,
    )
    metrics = results.metrics["test"]
    named, counts = digest(each.manifest), {str(k): int(n) for k, n in each.manifest["label"].value_counts().items()}
    run.log_dataset(each.name, named, str(folder / "manifest.parquet"), {"test": counts}, "evaluation")
    run.set_tags({f"cxrnet.data.digest.{each.name}": named})
    run.log_metrics({f"{each.name}_{name}": value for name, value in figures_of(metrics).items()}, 0)
    run.log_artifact(folder)
    return results
