"""The tables of a comparison as a paper prints them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from cxrnet.evaluation.comparison import Comparison
from cxrnet.reporting.rendering import Table
from cxrnet.reporting.wording import PER_CLASS, RESULT, duration, grouped

Facts = Mapping[str, Mapping[str, object]]
"""By run, what is known of it: ``{"run 1": {"backbone": "resnet50", "training seconds": 48.2}}``."""


def leaderboard(comparison: Comparison, facts: Facts) -> pd.DataFrame:
    """One row a run, the best first: its name, its facts, and each metric with the ends of its interval.

    Columns: ``run``, the facts, then ``<metric>, <metric>_low, <metric>_high``; empty where there is none.
    """
    figures = comparison.figures.set_index(["run", "metric"])
    rows = []
    for run in comparison.runs:
        numbers = figures.loc[[(run, metric) for metric in comparison.shown], ["value", "low", "high"]]
        rows.append([run, *(facts.get(run, {}).get(name) for name in names_of(facts)), *numbers.to_numpy().ravel()])
    ends = [f"{metric}{end}" for metric in comparison.shown for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["run", *names_of(facts), *ends])


def names_of(facts: Facts) -> list[str]:
    """The names of the facts that are known of any run."""
    return list(dict.fromkeys(name for known in facts.values() for name in known))


def class_reports(comparison: Comparison) -> pd.DataFrame:
    """The classification reports of all runs: ``run, class, precision, recall, f1, support``, one row a run and class.

    Below the classes of a run stand ``macro avg`` and ``accuracy``, whose value is in the column ``f1``, where
    scikit-learn's report has it.
    """
    blocks = []
    for run, figures in comparison.figures.groupby("run", sort=False):
        value, n = (figures.set_index("metric")[column] for column in ("value", "n"))
        rows = pd.DataFrame(
            [
                (name, *(value[f"{key}_{name}"] for key in ("precision", "sensitivity", "f1")))
                for name in comparison.classes
            ],
            columns=["class", "precision", "recall", "f1"],
        )
        means = [rows[column].mean(skipna=False) for column in ("precision", "recall", "f1")]
        rows.loc[len(rows)] = ["macro avg", *means]
        rows.loc[len(rows)] = ["accuracy", np.nan, np.nan, value["accuracy"]]
        rows["support"] = [*(n[f"sensitivity_{name}"] for name in comparison.classes), comparison.n, comparison.n]
        rows.insert(0, "run", run)
        blocks.append(rows)
    return pd.concat(blocks, ignore_index=True)


def shared_facts(facts: Facts) -> dict[str, object]:
    """The facts that are known of all runs and the same."""
    first, *others = facts.values() if facts else ({},)
    return {name: value for name, value in first.items() if all(name in o and o[name] == value for o in others)}


def printed_tables(comparison: Comparison, facts: Facts) -> dict[str, Table]:
    """Return the tables of a comparison as they are printed, those without rows left out.

    ``leaderboard`` (with the figures that are tested), ``further`` (with the others), ``class_figures`` (the figures of
    each class), ``tests`` and ``class_reports``.

    Args:
        comparison: what was found.
        facts: of each run; those that all runs share are in the note of the leaderboard
            (:func:`cxrnet.reporting.comparison_tables.shared_facts`).
    """
    tables = {
        "leaderboard": _printed_leaderboard(comparison, facts),
        "further": _printed_further(comparison),
        "class_figures": _printed_classes(comparison),
        "tests": _printed_tests(comparison),
        "class_reports": _printed_reports(comparison),
    }
    return {name: table for name, table in tables.items() if len(table.rows)}


def title_of(metric: str, comparison: Comparison) -> str:
    """Name a metric as a reader knows it: ``"ROC-AUC, macro"``, ``"Sensitivity, Covid"``."""
    for name in comparison.classes:
        key = metric.removesuffix(f"_{name}")
        if key != metric and metric not in RESULT:
            return f"{PER_CLASS.get(key, _words(key))}, {name}"
    return RESULT.get(metric, _words(metric))


def _words(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def fact_text(name: str, value: object) -> str:
    """Write a fact: whole numbers in groups, what is named ``... seconds`` as a time, what isn't known as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and name.endswith("seconds"):
        return duration(value)
    if isinstance(value, int):
        return grouped(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fact_title(name: str) -> str:
    return name.removesuffix("seconds").strip(" _")


def _printed_leaderboard(comparison: Comparison, facts: Facts) -> Table:
    shared = shared_facts(facts)
    names = [name for name in names_of(facts) if name not in shared]
    metrics = [metric for metric in comparison.metrics if not comparison.shown[metric][0]]
    known = [[fact_text(name, facts.get(run, {}).get(name)) for name in names] for run in comparison.runs]
    rows = [[*row[:1], *texts, *row[1:]] for row, texts in zip(_figures(comparison, metrics), known, strict=True)]
    columns = [
        "Run",
        *(_words(_fact_title(name)) for name in names),
        *(title_of(metric, comparison) for metric in metrics),
    ]
    same = "; ".join(f"{_fact_title(name)} {fact_text(name, value)}" for name, value in shared.items())
    note = (
        f"The best first, by {title_of(comparison.by, comparison)}. {grouped(comparison.n)} images; "
        f"each figure with its {comparison.level:.0%} interval.{_bins(comparison, metrics)}"
        f"{_gaps(comparison, metrics)}{f' The same for all runs: {same}.' if same else ''}"
    )
    return Table("Leaderboard", pd.DataFrame(rows, columns=columns), 1, False, note)


def _printed_further(comparison: Comparison) -> Table:
    """The figures that are of no class and not tested."""
    metrics = [name for name, (label, _) in comparison.shown.items() if not label and name not in comparison.metrics]
    columns = ["Run", *(title_of(metric, comparison) for metric in metrics)]
    rows = pd.DataFrame(_figures(comparison, metrics) if metrics else [], columns=columns)
    note = (
        f"Not tested. Each figure with its {comparison.level:.0%} interval.{_bins(comparison, metrics)}"
        f"{_gaps(comparison, metrics)}"
    )
    return Table("Further figures", rows, 1, False, note)


def _printed_classes(comparison: Comparison) -> Table:
    """The figures of each class, the runs below each other; empty cells where one isn't in the leaderboard."""
    metrics = {key: metric for metric, key in comparison.shown.items() if key[0]}
    figures = list(dict.fromkeys(figure for _, figure in metrics))
    rows = [
        [label, *row]
        for label in comparison.classes
        if any(name == label for name, _ in metrics)
        for row in _figures(comparison, [metrics.get((label, figure)) for figure in figures])
    ]
    columns = ["Class", "Run", *(PER_CLASS.get(figure, _words(figure)) for figure in figures)]
    note = (
        f"Each class against the rest, each figure with its {comparison.level:.0%} interval."
        f"{_gaps(comparison, metrics.values())}"
    )
    return Table("Figures of each class", pd.DataFrame(rows, columns=columns), 2, True, note)


def _figures(comparison: Comparison, metrics: Sequence[str | None]) -> list[list[str]]:
    """A row a run: its name, and figures with their intervals; an empty cell where ``None`` stands for one."""
    figures = comparison.figures.set_index(["run", "metric"])
    return [
        [run, *("" if name is None else _with_interval(figures.loc[(run, name)], "value") for name in metrics)]
        for run in comparison.runs
    ]


def _bins(comparison: Comparison, metrics: Iterable[str]) -> str:
    """Of how many bins an ECE is, where there is one: only those of equal binning compare."""
    return f" ECE in {comparison.bins} bins." if any(name.startswith("ece") for name in metrics) else ""


def _gaps(comparison: Comparison, metrics: Iterable[str]) -> str:
    return _reasons(comparison.figures[comparison.figures["metric"].isin(list(metrics))])


def _printed_tests(comparison: Comparison) -> Table:
    rows = [
        [
            f"{title_of(str(metric), comparison)}: {max(tests['test']) or 'no test'}",
            f"{test['a']}\nagainst {test['b']}",
            _with_interval(test, "difference"),
            _p(test["p"]),
            _p(test["p_holm"]),
        ]
        for metric, tests in comparison.tests.groupby("metric", sort=False)
        for _, test in tests.iterrows()
    ]
    pairs = "1 pair" if comparison.pairs == 1 else f"{comparison.pairs} pairs"
    note = (
        f"Paired tests on the same {grouped(comparison.n)} images; each difference is the first run minus the other, "
        f"with its {comparison.level:.0%} interval. Holm: corrected for {pairs} of runs in each figure, of a figure of "
        "each class for the classes too, but not for the number of figures; the intervals are not corrected."
        f"{_auc_tests(comparison)}"
    )
    frame = pd.DataFrame(rows, columns=["Figure: test", "Runs", "Difference", "p", "p, Holm"])
    return Table("Differences", frame, 2, True, note + _reasons(comparison.tests))


def _auc_tests(comparison: Comparison) -> str:
    """Why an AUC has two tests, where it has."""
    aucs = comparison.tests[comparison.tests["metric"].str.startswith("roc_auc")]
    if not {"DeLong", "paired bootstrap"} <= set(aucs["test"]):
        return ""
    return (
        " DeLong's test is of one curve each: it compares the ROC-AUC of each class against the rest, and the mean "
        "over the classes is left to the bootstrap."
    )


def _printed_reports(comparison: Comparison) -> Table:
    reports = class_reports(comparison)
    rows = reports[["run", "class"]].copy()
    rows.columns = ["Run", "Class"]
    accuracy = ~reports["run"].duplicated(keep="last")
    for name, title in (("precision", "Precision"), ("recall", "Recall (sensitivity)"), ("f1", "F1")):
        rows[title] = [_number(value) for value in reports[name]]
        if name != "f1":
            rows.loc[accuracy, title] = ""
    rows["Images"] = [grouped(int(n)) for n in reports["support"]]
    keys = [f"{key}_{name}" for key in ("precision", "sensitivity", "f1") for name in comparison.classes]
    gaps = comparison.figures[comparison.figures["metric"].isin(keys)]
    note = "The calls of each run by class; accuracy stands in the column of F1."
    return Table("Classification reports", rows, 2, True, note + _reasons(gaps))


def _with_interval(row: pd.Series, column: str) -> str:
    """Write a number and, on a second line, its interval; differences carry their sign."""
    sign = "+" if column == "difference" else ""
    if np.isnan(row["low"]):
        return _number(row[column], sign)
    between = " to " if sign else "–"
    return f"{_number(row[column], sign)}\n({_number(row['low'], sign)}{between}{_number(row['high'], sign)})"


def _number(value: float, sign: str = "") -> str:
    text = "n/a" if np.isnan(value) else f"{value:{sign}.3f}".replace("-", "−")
    return "0.000" if text in ("+0.000", "−0.000") else text


def _p(value: float) -> str:
    return "n/a" if np.isnan(value) else "< 0.001" if value < 0.0005 else f"{value:.3f}"


def _reasons(rows: pd.DataFrame) -> str:
    """Why figures are missing, each reason once, as further sentences."""
    reasons = dict.fromkeys(reason for reason in rows["reason"] if reason)
    return f" Missing: {'; '.join(reasons)}." if reasons else ""
