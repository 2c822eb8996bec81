"""Several runs on the same images: their figures in one table, and a paired test of each two of them.

Every table, figure and page of a comparison is a function of what :func:`compare` returns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.bootstrap import Clusters, clusters_of
from cxrnet.evaluation.catalogue import Estimates, Key, spec_of
from cxrnet.evaluation.metric_intervals import behind, of_one_cluster
from cxrnet.evaluation.metrics import Evaluation, Metric, evaluate, evaluate_resampled, flat, rows_of
from cxrnet.evaluation.predictions import classes_of
from cxrnet.evaluation.significance import PairedTest, accuracy_test, auc_test, bootstrap_test, holm, no_test
from cxrnet.evaluation.sums import Rows


def align(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Put the images and the classes of every run into the order of the first one.

    Args:
        tables: predictions by name of the run.

    Raises:
        CxrnetError: there are fewer than two runs, or one differs from the first in its classes, images or labels.
    """
    if len(tables) < 2:
        raise CxrnetError(f"runs: {len(tables)} given; a comparison needs at least two, tested on the same images")
    (first, reference), *others = tables.items()
    aligned = {first: reference.reset_index(drop=True)}
    for name, table in others:
        _check_classes(first, reference, name, table)
        _check_images(first, reference, name, table)
        rows = table.set_index("image_id").loc[reference["image_id"]].reset_index()
        _check_labels(first, reference, name, rows)
        aligned[name] = _in_order(rows, classes_of(reference))
    return aligned


def _check_classes(first: str, reference: pd.DataFrame, name: str, table: pd.DataFrame) -> None:
    ours, theirs = classes_of(table), classes_of(reference)
    if set(ours) != set(theirs):
        raise CxrnetError(
            f"runs: '{name}' has the classes {', '.join(ours)}, '{first}' has {', '.join(theirs)}; "
            "compare runs of the same classes"
        )


def _check_images(first: str, reference: pd.DataFrame, name: str, table: pd.DataFrame) -> None:
    ours, theirs = set(table["image_id"]), set(reference["image_id"])
    found = [
        f"{len(ids)} of the {len(whole)} images of '{run}' are not in '{other}' (as '{min(ids)}')"
        for run, other, whole, ids in ((first, name, theirs, theirs - ours), (name, first, ours, ours - theirs))
        if ids
    ]
    if found:
        raise CxrnetError(
            f"runs: '{name}' and '{first}' are tested on different images: {', '.join(found)}; "
            "compare runs with the same data and the same split"
        )


def _check_labels(first: str, reference: pd.DataFrame, name: str, rows: pd.DataFrame) -> None:
    """Compare the labels of the same images; missing ones are refused later, by the figures."""
    ours, theirs = rows["label"].fillna(""), reference["label"].reset_index(drop=True).fillna("")
    different = np.flatnonzero((ours != theirs).to_numpy(bool))
    if len(different):
        row = different[0]
        raise CxrnetError(
            f"runs: '{name}' and '{first}' give {len(different)} of {len(rows)} images different labels "
            f"('{rows['image_id'][row]}': {ours[row] or 'none'}, {theirs[row] or 'none'}); "
            "compare runs with the same labels"
        )


def _in_order(rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Put the columns of the classes into order, behind all others."""
    columns = [f"{kind}_{name}" for kind in ("logit", "prob") for name in classes]
    return rows[[name for name in rows.columns if name not in columns] + columns]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        tables: predictions by run, all with the same images and classes in the same order.
        figures: one row a run and figure: ``run, metric, value, low, high, method, n, reason``. A figure of one class
            is named as in MLflow (``sensitivity_Covid``). ``value`` is NaN where it can't be computed, ``low`` and
            ``high`` where it has no interval; ``reason`` says why.
        tests: one row a pair of runs and metric: ``metric, a, b, difference, low, high, p, p_holm, test, n, reason``;
            ``difference`` is that of a minus that of b, ``n`` the images.
        shown: class and figure of each metric of the leaderboard, those that are tested first; the class of what holds
            for all classes is empty.
        by: the metric by whose value the runs stand, the best first.
        units: the images that belong together, which the bootstrap draws as a whole.
        resamples: of the bootstrap.
        level: of the intervals.
        bins: of each ECE.
    """

    tables: Mapping[str, pd.DataFrame]
    figures: pd.DataFrame
    tests: pd.DataFrame
    shown: Mapping[str, Key]
    by: str
    units: Clusters
    resamples: int
    level: float
    bins: int

    @property
    def runs(self) -> list[str]:
        """The names of the runs."""
        return list(self.tables)

    @property
    def metrics(self) -> list[str]:
        """The metrics that were tested."""
        return list(dict.fromkeys(self.tests["metric"]))

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in order."""
        return classes_of(next(iter(self.tables.values())))

    @property
    def n(self) -> int:
        """Images that every run is tested on."""
        return len(next(iter(self.tables.values())))

    @property
    def pairs(self) -> int:
        """Tests of one metric."""
        return comb(len(self.tables), 2)


@dataclass(frozen=True)
class Evaluated:
    """One run: its table, its figures with intervals, and what they are in each resample."""

    table: pd.DataFrame
    rows: Rows
    evaluation: Evaluation
    drawn: Estimates


def compare(
    tables: Mapping[str, pd.DataFrame],
    metrics: Sequence[str],
    by: str,
    resamples: int,
    seed: int,
    level: float,
    bins: int,
    also: Sequence[str] = (),
) -> Comparison:
    """Compare runs on the images that they are all tested on.

    Args:
        tables: predictions by name of the run, every label known.
        metrics: the figures to test, by the names that :class:`Comparison` uses. A figure of a class without its
            class, as ``roc_auc``, is that of every class.
        by: the one of them that says which run is the best.
        resamples: of the bootstrap, the same ones for all runs.
        seed: of the bootstrap.
        level: of the intervals, as 0.95.
        bins: of each ECE.
        also: further figures of the leaderboard, which are not tested; named as ``metrics`` are.

    Raises:
        CxrnetError: the runs can't be compared (:func:`cxrnet.evaluation.comparison.align`), labels are missing, or a
            metric, ``resamples``, ``level`` or ``bins`` won't do.
    """
    tables = align(tables)
    evaluation = evaluate(next(iter(tables.values())))
    families = {name: _keys("metrics", name, evaluation) for name in metrics}
    if by not in [metric for keys in families.values() for metric in keys]:
        raise CxrnetError(f"by: '{by}' is none of the metrics {', '.join(metrics)}; choose one of them")
    shown = [*families.values(), *(_keys("also", name, evaluation) for name in also)]
    units = clusters_of(_tied(tables))
    runs = {
        name: Evaluated(table, rows_of(table), *evaluate_resampled(table, units, resamples, seed, level, bins=bins))
        for name, table in tables.items()
    }
    figures = _figures({name: run.evaluation for name, run in runs.items()})
    shown_keys = {metric: key for keys in shown for metric, key in keys.items()}
    best_first = figures[figures["metric"] == by].sort_values(
        "value", ascending=not spec_of(shown_keys[by]).higher_is_better, kind="stable"
    )
    order = list(best_first["run"])  # those without a value stand last
    tests = [_tests(keys, {run: runs[run] for run in order}, units, level) for keys in families.values()]
    return Comparison(
        tables={run: tables[run] for run in order},
        figures=figures.set_index("run").loc[order].reset_index(),
        tests=pd.concat(tests, ignore_index=True).drop_duplicates(["metric", "a", "b"], ignore_index=True),
        shown=shown_keys,
        by=by,
        units=units,
        resamples=resamples,
        level=level,
        bins=bins,
    )


def _keys(where: str, name: str, evaluation: Evaluation) -> dict[str, Key]:
    """Class and figure of a metric, or of each class of a figure of classes.

    Two classes have the same AUC, which is tested once.
    """
    known = {metric: key for metric, key, _ in flat(evaluation)}
    if name in known:
        return {name: known[name]}
    classes = list(evaluation["per_class"])
    if name not in evaluation["per_class"][classes[0]]:
        of_each = f"and of each class {', '.join(evaluation['per_class'][classes[0]])}"
        raise CxrnetError(f"{where}: '{name}' is no figure; the figures are {', '.join(known)}, {of_each}")
    shown = classes[-1:] if (where, name, len(classes)) == ("metrics", "roc_auc", 2) else classes
    return {f"{name}_{label}": (label, name) for label in shown}


def _tied(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Labels, patients and copy groups of the images; what one run doesn't know of an image, another one may."""
    first, *others = tables.values()
    rows = first[["label"]].copy()
    for column in ("patient_id", "group_id"):
        for table in (first, *others):
            if column in table:
                rows[column] = rows[column].fillna(table[column]) if column in rows else table[column]
    return rows


def _figures(evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    """All figures of all runs, one row each; columns as :class:`Comparison` says."""
    rows = []
    for run, evaluation in evaluations.items():
        for name, _, metric in flat(evaluation):
            value = np.nan if metric["value"] is None else metric["value"]
            ends = metric.get("interval", (np.nan, np.nan))
            reason = metric.get("reason", metric.get("interval_reason", ""))
            rows.append((run, name, value, *ends, metric.get("method", ""), metric["n"], reason))
    return pd.DataFrame(rows, columns=["run", "metric", "value", "low", "high", "method", "n", "reason"])


def _tests(keys: Mapping[str, Key], runs: Mapping[str, Evaluated], units: Clusters, level: float) -> pd.DataFrame:
    """One row a metric and pair of runs, corrected for the number of pairs and, of a figure of classes, of classes."""
    rows = []
    for metric, key in keys.items():
        for (a, first), (b, second) in combinations(runs.items(), 2):
            difference, test = _test(key, first, second, units, level)
            rows.append({"metric": metric, "a": a, "b": b, "difference": difference} | test._asdict())
    table = pd.DataFrame(rows).assign(n=len(units.of_row))
    table["p_holm"] = holm(table["p"].to_numpy(float))
    return table[["metric", "a", "b", "difference", "low", "high", "p", "p_holm", "test", "n", "reason"]]


def _test(key: Key, a: Evaluated, b: Evaluated, units: Clusters, level: float) -> tuple[float, PairedTest]:
    """The difference of two runs in one figure, and the test that suits the figure."""
    first, second = _metric(a.evaluation, key), _metric(b.evaluation, key)
    if first["value"] is None or second["value"] is None:
        return np.nan, no_test(first.get("reason") or second.get("reason", ""))
    difference = first["value"] - second["value"]
    if of_one_cluster(units, key, a.rows, b.rows):
        return difference, no_test(f"the images behind it are of one {units.kind}")
    if (positive := _auc_class(key, a.rows.classes)) is not None:
        scores = [run.rows.probabilities[:, positive] for run in (a, b)]
        return difference, auc_test(a.rows.codes == positive, scores[0], scores[1], units.of_row, level)
    test = bootstrap_test(a.drawn[key], b.drawn[key], behind(units, key, a.rows, b.rows), level)
    if key == ("", "accuracy"):
        right = [run.rows.predicted == run.rows.codes for run in (a, b)]
        return difference, accuracy_test(right[0], right[1], units.of_row, test)
    return difference, test


def _metric(evaluation: Evaluation, key: Key) -> Metric:
    label, name = key
    metric: Metric = evaluation["per_class"][label][name] if label else evaluation[name]
    return metric


def _auc_class(key: Key, classes: Sequence[str]) -> int | None:
    """The class whose AUC a figure is; of two classes each has the AUC of the other, and of their mean."""
    label, name = key
    if name in ("roc_auc_macro", "roc_auc_weighted") and len(classes) == 2:
        return 1
    return classes.index(label) if name == "roc_auc" else None
