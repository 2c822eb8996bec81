"""Several runs: the spread of their metrics, and a comparison on the same images with a paired test of each two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from scipy.stats import t

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.catalogue import OVERALL, PER_CLASS, Estimates, Key, shown_in, spec_named, spec_of
from cxrnet.evaluation.confidence_intervals import ROUNDING, Clusters, Interval, clusters_of
from cxrnet.evaluation.metrics import Evaluation, Metric, behind, evaluate_resampled, flat, of_one_cluster
from cxrnet.evaluation.predictions import classes_of
from cxrnet.evaluation.significance import PairedTest, accuracy_test, auc_test, bootstrap_test, holm, no_test
from cxrnet.evaluation.sums import Rows, rows_of

SUMMARY = tuple(spec.name for spec in shown_in("summary"))
"""The metrics whose spread is shown; ``repeats.csv`` has all."""


@dataclass(frozen=True)
class Moments:
    """One metric over several runs, or over the seeds of several.

    Attributes:
        runs: number of runs that have it.
        mean: over them.
        sd: their standard deviation (n - 1), of folds of several seeds that within a seed; ``None`` of a single one.
        lowest: the lowest of them.
        highest: the highest of them.
        interval: confidence interval of the mean over seeds (Student's t): what other seeds would give on these data,
            nothing about other patients. ``None`` of a single seed, of seeds that gave the same, which tells nothing
            of others, and over folds, whose networks share most of their training images.
    """

    runs: int
    mean: float
    sd: float | None
    lowest: float
    highest: float
    interval: Interval | None


def moments_of(spread: pd.DataFrame, level: float, metrics: Sequence[str] = SUMMARY) -> dict[str, Moments]:
    """Summarise each metric over the runs.

    Args:
        spread: one row a run, one column a metric, empty where a run doesn't have it. Where there are ``fold``s they
            differ within their ``seed`` only.
        level: level of the confidence intervals.
        metrics: names of columns; those that no run has are left out.
    """
    folds = "fold" in spread and bool(spread["fold"].notna().any())
    groups = spread["seed"] if folds else pd.Series(0, spread.index)
    found = {}
    for name in metrics:
        if name not in spread or spread[name].isna().all():
            continue
        values = spread[name].dropna()
        group = groups[values.index]
        gaps = values - values.groupby(group).transform("mean")
        n, mean, free = len(values), float(values.mean()), len(values) - group.nunique()
        sd = float(((gaps**2).sum() / free) ** 0.5) if free else None
        interval = None
        if not folds and sd and sd > ROUNDING:
            half, spec = float(t.ppf((1 + level) / 2, free)) * (sd / n**0.5), spec_named(name)
            interval = max(mean - half, spec.low), min(mean + half, spec.high)
        found[name] = Moments(n, mean, sd, float(values.min()), float(values.max()), interval)
    return found


@dataclass(frozen=True)
class ComparisonSettings:
    """Metrics of a comparison, and its bootstrap.

    Attributes:
        metrics: those that are tested, named as in MLflow (``accuracy``, ``sensitivity_Covid``). A metric of one class
            without its class (``roc_auc``) stands for that of every class.
        also: further metrics of the leaderboard, which are not tested; named as ``metrics``.
        by: the one of ``metrics`` that ranks the runs.
        resamples: resamples of the bootstrap, the same ones for all runs.
        seed: seed of the bootstrap.
        level: level of the confidence intervals, as 0.95.
        bins: bins of each ECE.
    """

    metrics: Sequence[str]
    also: Sequence[str]
    by: str
    resamples: int
    seed: int
    level: float
    bins: int


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        tables: predictions by run, the best first, all with the same images and classes in the same order.
        metrics: one row a run and metric: ``run, metric, value, low, high, method, n, reason``. ``value`` is NaN where
            it can't be computed, ``low`` and ``high`` where it has no interval; ``reason`` says why.
        tests: one row a pair of runs and metric: ``metric, a, b, difference, low, high, p, p_holm, test, n, reason``;
            ``difference`` is that of a minus that of b, ``n`` the images.
        shown: class and metric of each metric of the leaderboard, the tested ones first.
        clusters: the clusters, which the bootstrap draws as a whole.
        settings: what was asked for.
    """

    tables: Mapping[str, pd.DataFrame]
    metrics: pd.DataFrame
    tests: pd.DataFrame
    shown: Mapping[str, Key]
    clusters: Clusters
    settings: ComparisonSettings

    @property
    def runs(self) -> list[str]:
        """The names of the runs."""
        return list(self.tables)

    @property
    def tested(self) -> list[str]:
        """The metrics that were tested."""
        return list(dict.fromkeys(self.tests["metric"]))

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in order."""
        return classes_of(next(iter(self.tables.values())))

    @property
    def n(self) -> int:
        """Number of images that every run is tested on."""
        return len(next(iter(self.tables.values())))

    @property
    def pairs(self) -> int:
        """Number of tests of one metric."""
        return comb(len(self.tables), 2)


@dataclass(frozen=True)
class _Evaluated:
    """One run: its metrics with confidence intervals, and their values in each resample."""

    rows: Rows
    evaluation: Evaluation
    drawn: Estimates


def compare(tables: Mapping[str, pd.DataFrame], settings: ComparisonSettings) -> Comparison:
    """Compare runs on the images that they are all tested on.

    Args:
        tables: predictions by name of the run, every label known.
        settings: what is compared and how.

    Raises:
        CxrnetError: the runs can't be compared (:func:`align`), labels are missing, or a setting won't do.
    """
    tables = align(tables)
    classes = classes_of(next(iter(tables.values())))
    families = [_keys("metrics", name, classes) for name in settings.metrics]
    shown = {metric: key for keys in families for metric, key in keys.items()}
    if settings.by not in shown:
        raise CxrnetError(
            f"by: '{settings.by}' is none of the metrics {', '.join(settings.metrics)}; choose one of them"
        )
    clusters, runs, rows = clusters_of(_clustered(tables)), {}, []
    for run, table in tables.items():
        evaluation, drawn = evaluate_resampled(
            table, clusters, settings.resamples, settings.seed, settings.level, bins=settings.bins
        )
        runs[run] = _Evaluated(rows_of(table), evaluation, drawn)
        for name, _, metric in flat(evaluation):
            value = np.nan if metric["value"] is None else metric["value"]
            ends = metric.get("interval", (np.nan, np.nan))
            reason = metric.get("reason", metric.get("interval_reason", ""))
            rows.append((run, name, value, *ends, metric.get("method", ""), metric["n"], reason))
    metrics = pd.DataFrame(rows, columns=["run", "metric", "value", "low", "high", "method", "n", "reason"])
    lower_is_better = not spec_of(shown[settings.by]).higher_is_better
    ranked = metrics[metrics["metric"] == settings.by].sort_values("value", ascending=lower_is_better, kind="stable")
    order = list(ranked["run"])  # those without a value stand last
    tests = [_tests(keys, {run: runs[run] for run in order}, clusters, settings.level) for keys in families]
    return Comparison(
        tables={run: tables[run] for run in order},
        metrics=metrics.set_index("run").loc[order].reset_index(),
        tests=pd.concat(tests, ignore_index=True).drop_duplicates(["metric", "a", "b"], ignore_index=True),
        shown=shown | {k: v for name in settings.also for k, v in _keys("also", name, classes).items()},
        clusters=clusters,
        settings=settings,
    )


def align(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Put the images and the classes of every run, predictions by its name, into the order of the first one.

    Raises:
        CxrnetError: there are fewer than two runs, or one differs from the first in its classes, images or labels.
    """
    if len(tables) < 2:
        raise CxrnetError(f"runs: {len(tables)} given; a comparison needs at least two, tested on the same images")
    (first, reference), *others = tables.items()
    classes = classes_of(reference)
    aligned = {first: reference.reset_index(drop=True)}
    for name, table in others:
        if set(classes_of(table)) != set(classes):
            raise CxrnetError(
                f"runs: '{name}' has the classes {', '.join(classes_of(table))}, '{first}' has {', '.join(classes)}; "
                "compare runs of the same classes"
            )
        ours, theirs = set(reference["image_id"]), set(table["image_id"])
        sides = ((first, ours, name, ours - theirs), (name, theirs, first, theirs - ours))
        if found := [
            f"{len(ids)} of the {len(whole)} images of '{one}' are not in '{other}' (as '{min(ids)}')"
            for one, whole, other, ids in sides
            if ids
        ]:
            raise CxrnetError(
                f"runs: '{name}' and '{first}' are tested on different images: {', '.join(found)}; "
                "compare runs with the same data and the same split"
            )
        rows = table.set_index("image_id").loc[reference["image_id"]].reset_index()
        # Missing labels are refused later, by the metrics.
        label, known = rows["label"].fillna(""), aligned[first]["label"].fillna("")
        different = np.flatnonzero((label != known).to_numpy(bool))
        if len(different):
            row = different[0]
            raise CxrnetError(
                f"runs: '{name}' and '{first}' give {len(different)} of {len(rows)} images different labels "
                f"('{rows['image_id'][row]}': {label[row] or 'none'}, {known[row] or 'none'}); "
                "compare runs with the same labels"
            )
        last = [f"{kind}_{each}" for kind in ("logit", "prob") for each in classes]
        aligned[name] = rows[[column for column in rows.columns if column not in last] + last]
    return aligned


def _keys(where: str, name: str, classes: Sequence[str]) -> dict[str, Key]:
    """Return class and name of a metric, or of a metric of each class; two classes have one AUC, tested once."""
    named = {(label, metric): f"{metric}_{label}" for label in classes for metric in PER_CLASS}
    # As in flat: a class may be called "macro".
    of_classes = {f"{known} (class)" if known in OVERALL else known: key for key, known in named.items()}
    if name in OVERALL:
        return {name: ("", name)}
    if name in of_classes:
        return {name: of_classes[name]}
    if name not in PER_CLASS:
        known = f"{', '.join([*OVERALL, *of_classes])}, and of each class {', '.join(PER_CLASS)}"
        raise CxrnetError(f"{where}: '{name}' is no metric; the metrics are {known}")
    shown = classes[-1:] if (where, name, len(classes)) == ("metrics", "roc_auc", 2) else classes
    return {metric: key for metric, key in of_classes.items() if key[1] == name and key[0] in shown}


def _clustered(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Collect labels, patients and duplicate groups; what one run doesn't know of an image, another one may."""
    first, *others = tables.values()
    rows = first[["label"]].copy()
    for column in ("patient_id", "group_id"):
        for table in (first, *others):
            if column in table:
                rows[column] = rows[column].fillna(table[column]) if column in rows else table[column]
    return rows


def _tests(keys: Mapping[str, Key], runs: Mapping[str, _Evaluated], clusters: Clusters, level: float) -> pd.DataFrame:
    """Test each pair of runs, corrected for the number of pairs and, in a metric of each class, of classes."""
    rows = []
    for metric, key in keys.items():
        for (a, first), (b, second) in combinations(runs.items(), 2):
            difference, test = _test(key, (first, second), clusters, level)
            rows.append({"metric": metric, "a": a, "b": b, "difference": difference} | test._asdict())
    table = pd.DataFrame(rows).assign(n=len(clusters.of_row))
    table["p_holm"] = holm(table["p"].to_numpy(float))
    return table[["metric", "a", "b", "difference", "low", "high", "p", "p_holm", "test", "n", "reason"]]


def _test(key: Key, pair: tuple[_Evaluated, _Evaluated], clusters: Clusters, level: float) -> tuple[float, PairedTest]:
    """Return the difference of two runs in one metric, and the test that suits the metric."""
    label, name = key
    metrics: list[Metric] = [
        run.evaluation["per_class"][label][name] if label else run.evaluation[name] for run in pair
    ]
    first, second = metrics
    if first["value"] is None or second["value"] is None:
        return np.nan, no_test(first.get("reason") or second.get("reason", ""))
    difference, rows = first["value"] - second["value"], [run.rows for run in pair]
    if of_one_cluster(clusters, key, *rows):
        return difference, no_test(f"the images behind it are of one {clusters.kind}")
    classes, codes = list(rows[0].classes), rows[0].codes
    # Of two classes each has the AUC of the other, and of their mean.
    of_two = not label and OVERALL[name].mean_of == "roc_auc" and len(classes) == 2
    if of_two or name == "roc_auc":
        positive = 1 if of_two else classes.index(label)
        scores = [each.probabilities[:, positive] for each in rows]
        return difference, auc_test(codes == positive, scores[0], scores[1], clusters.of_row, level)
    test = bootstrap_test(pair[0].drawn[key], pair[1].drawn[key], behind(clusters, key, *rows), level)
    if key == ("", "accuracy"):
        right = [each.predicted == each.codes for each in rows]
        return difference, accuracy_test(right[0], right[1], clusters.of_row, test)
    return difference, test
