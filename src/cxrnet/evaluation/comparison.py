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
from cxrnet.evaluation.alignment import align
from cxrnet.evaluation.bootstrap import Units, units_of
from cxrnet.evaluation.metrics import Evaluation, Metric, evaluate, evaluate_resampled, flat, rows_of
from cxrnet.evaluation.paired_tests import PairedTest, accuracy_test, auc_test, bootstrap_test, holm, no_test
from cxrnet.evaluation.predictions import classes_of
from cxrnet.evaluation.weighted import Figures, Key, Rows, rows_behind

LOWER_IS_BETTER = ("log_loss", "brier", "ece")


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
        by: the metric by whose value the runs stand, the best first.
        units: the images that belong together, which the bootstrap draws as a whole.
        resamples: of the bootstrap.
        level: of the intervals.
    """

    tables: Mapping[str, pd.DataFrame]
    figures: pd.DataFrame
    tests: pd.DataFrame
    by: str
    units: Units
    resamples: int
    level: float

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
    drawn: Figures


def compare(
    tables: Mapping[str, pd.DataFrame], metrics: Sequence[str], by: str, resamples: int, seed: int, level: float
) -> Comparison:
    """Compare runs on the images that they are all tested on.

    Args:
        tables: predictions by name of the run, every label known.
        metrics: the figures to test, by the names that :class:`Comparison` uses.
        by: the one of them that says which run is the best.
        resamples: of the bootstrap, the same ones for all runs.
        seed: of the bootstrap.
        level: of the intervals, as 0.95.

    Raises:
        CxrnetError: the runs can't be compared (:func:`cxrnet.evaluation.alignment.align`), labels are missing, or a
            metric, ``resamples`` or ``level`` won't do.
    """
    tables = align(tables)
    keys = _keys(metrics, by, evaluate(next(iter(tables.values()))))
    units = units_of(_tied(tables))
    runs = {
        name: Evaluated(table, rows_of(table), *evaluate_resampled(table, units, resamples, seed, level))
        for name, table in tables.items()
    }
    figures = _figures({name: run.evaluation for name, run in runs.items()})
    order = _best_first(figures[figures["metric"] == by])
    tests = [_tests(name, key, {run: runs[run] for run in order}, units, level) for name, key in keys.items()]
    return Comparison(
        tables={run: tables[run] for run in order},
        figures=figures.set_index("run").loc[order].reset_index(),
        tests=pd.concat(tests, ignore_index=True),
        by=by,
        units=units,
        resamples=resamples,
        level=level,
    )


def _keys(metrics: Sequence[str], by: str, evaluation: Evaluation) -> dict[str, Key]:
    """Class and figure of each metric to test."""
    known = {name: key for name, key, _ in flat(evaluation)}
    if unknown := [name for name in metrics if name not in known]:
        raise CxrnetError(f"metrics: '{unknown[0]}' is no figure; the figures are {', '.join(known)}")
    if by not in metrics:
        raise CxrnetError(f"by: '{by}' is none of the metrics {', '.join(metrics)}; choose one of them")
    return {name: known[name] for name in metrics}


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


def _best_first(figures: pd.DataFrame) -> list[str]:
    """The runs by one metric; those without a value stand last."""
    ascending = figures["metric"].iloc[0].startswith(LOWER_IS_BETTER)
    return list(figures.sort_values("value", ascending=ascending, kind="stable")["run"])


def _tests(metric: str, key: Key, runs: Mapping[str, Evaluated], units: Units, level: float) -> pd.DataFrame:
    """One row a pair of runs, tested in one metric, corrected for the number of pairs."""
    rows = []
    for (a, first), (b, second) in combinations(runs.items(), 2):
        difference, test = _test(key, first, second, units, level)
        rows.append({"metric": metric, "a": a, "b": b, "difference": difference} | test._asdict())
    table = pd.DataFrame(rows).assign(n=len(units.of_row))
    table["p_holm"] = holm(table["p"].to_numpy(float))
    return table[["metric", "a", "b", "difference", "low", "high", "p", "p_holm", "test", "n", "reason"]]


def _test(key: Key, a: Evaluated, b: Evaluated, units: Units, level: float) -> tuple[float, PairedTest]:
    """The difference of two runs in one figure, and the test that suits the figure."""
    first, second = _metric(a.evaluation, key), _metric(b.evaluation, key)
    if first["value"] is None or second["value"] is None:
        return np.nan, no_test(first.get("reason") or second.get("reason", ""))
    difference = first["value"] - second["value"]
    behind = _units_behind(key, a.rows, b.rows, units)
    if behind < 2:
        return difference, no_test(f"the images behind it are of one {units.kind}")
    if (positive := _auc_class(key, a.rows.classes)) is not None:
        scores = [run.rows.probabilities[:, positive] for run in (a, b)]
        return difference, auc_test(a.rows.codes == positive, scores[0], scores[1], units.of_row, level)
    test = bootstrap_test(a.drawn[key], b.drawn[key], behind, level)
    if key == ("", "accuracy"):
        return difference, accuracy_test(a.rows.called == a.rows.codes, b.rows.called == b.rows.codes, test)
    return difference, test


def _metric(evaluation: Evaluation, key: Key) -> Metric:
    label, name = key
    return evaluation["per_class"][label][name] if label else evaluation[name]  # type: ignore[literal-required]


def _units_behind(key: Key, a: Rows, b: Rows, units: Units) -> int:
    """The fewest units that a figure of both runs rests on: one that weighs a class against the rest rests on both."""
    label, name = key
    behind = units.count(rows_behind(a, key) | rows_behind(b, key))
    if not label or name in ("sensitivity", "specificity"):
        return behind
    return min(behind, *(units.count(rows_behind(a, (label, side))) for side in ("sensitivity", "specificity")))


def _auc_class(key: Key, classes: Sequence[str]) -> int | None:
    """The class whose AUC a figure is; of two classes each has the AUC of the other, and of their mean."""
    label, name = key
    if name in ("roc_auc_macro", "roc_auc_weighted") and len(classes) == 2:
        return 1
    return classes.index(label) if name == "roc_auc" else None
