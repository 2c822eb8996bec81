"""The report of a comparison: verdict and warnings, tables, one page, Markdown, LaTeX, CSV and the console."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cxrnet.core import console
from cxrnet.core.atomic import write_text
from cxrnet.core.spreadsheet import to_csv
from cxrnet.evaluation.catalogue import Key, spec_of
from cxrnet.evaluation.comparison import Comparison
from cxrnet.evaluation.significance import smallest_p
from cxrnet.reporting.plots.comparison import MOST_RUNS, save_comparison_plots
from cxrnet.reporting.rendering import (
    Table,
    bullets,
    data_uri,
    latex_tables,
    markdown,
    paragraph,
    plain,
    render_page,
    rich_table,
)
from cxrnet.reporting.wording import duration, grouped, level_text

_MOST_ROWS = 30  # of a table on the console


@dataclass(frozen=True)
class ComparedRuns:
    """A comparison and what is known of its runs.

    Attributes:
        comparison: the numbers.
        facts: by run, plain values: ``{"run 1": {"backbone": "resnet50", "training seconds": 48.2}}``.
        leaked: by run, ``image_id`` of the images that were leaked into its training; a run of which that isn't known
            is left out.
    """

    comparison: Comparison
    facts: Mapping[str, Mapping[str, object]]
    leaked: Mapping[str, Set[str]]

    @property
    def fact_names(self) -> list[str]:
        """The names of the facts that are known of any run."""
        return list(dict.fromkeys(name for known in self.facts.values() for name in known))

    @property
    def shared_facts(self) -> dict[str, object]:
        """The facts that are known of all runs and the same."""
        first, *others = self.facts.values() if self.facts else ({},)
        return {name: value for name, value in first.items() if all(name in o and o[name] == value for o in others)}


def title_of(key: Key) -> str:
    """Name a metric as a reader knows it: ``"ROC-AUC, macro"``, ``"Sensitivity, Covid"``."""
    title = spec_of(key).title
    return f"{title}, {key[0]}" if key[0] else title


def _share(runs: ComparedRuns, images: Set[str]) -> str:
    return f"{grouped(len(images))} of the {grouped(runs.comparison.n)} images"


def _names(runs: list[str]) -> str:
    return ", ".join(runs) if len(runs) <= 4 else f"{len(runs)} others"


def verdict(runs: ComparedRuns) -> str:
    """Name the best run, and the other runs that it is shown to be better than.

    Better is what the corrected p and the confidence interval of the difference both show: they may be of two tests. A
    run is not stated to be better than one into whose training less was leaked.
    """
    comparison, best, by = runs.comparison, runs.comparison.runs[0], runs.comparison.settings.by
    metrics, title = comparison.metrics, title_of(comparison.shown[by])
    row = metrics[(metrics["run"] == best) & (metrics["metric"] == by)].iloc[0]
    if pd.isna(row["value"]):
        return f"No run has a value of {title}: {row['reason']}."
    says = f"{best} is the best by {title}: {row['value']:.3f}"
    if not pd.isna(row["low"]):
        says += f" ({level_text(comparison.settings.level)} confidence interval {row['low']:.3f}–{row['high']:.3f})"
    says += "."
    tests = comparison.tests[(comparison.tests["metric"] == by) & (comparison.tests["a"] == best)]
    own = runs.leaked.get(best, frozenset())
    cleaner = np.array([not own <= runs.leaked.get(run, frozenset()) for run in tests["b"]])
    if cleaner.any():
        others = list(tests["b"][cleaner])
        which = "into whose training not all of these were leaked" if all(run in runs.leaked for run in others) else ""
        says += (
            f" But {_share(runs, own)} were leaked into its training (their patient, or a duplicate), which flatters "
            f"it: it is not shown to be better than {_names(others)}, {which or 'of which that is not known'}."
        )
    if cleaner.all():
        return says
    tests = tests[~cleaner]
    shown = (tests["p_holm"] < 1 - comparison.settings.level) & ~((tests["low"] <= 0) & (tests["high"] >= 0))
    better, others = list(tests["b"][shown]), list(tests["b"][~shown])
    if not better:
        return f"{says} The tests do not show it to be better than {_names(others)}."
    but = f", but not than {_names(others)}" if others else ""
    return f"{says} The tests show it to be better than {_names(better)}{but}."


def warnings_of(runs: ComparedRuns) -> list[str]:
    """Warn of leaked images, of the luck of the best run, and of too few resamples."""
    comparison, settings = runs.comparison, runs.comparison.settings
    found: dict[str, list[str]] = {}
    for run in comparison.runs:
        if images := runs.leaked.get(run):
            found.setdefault(_share(runs, images), []).append(run)
    sentences = [
        f"{', '.join(names) if len(names) < len(comparison.runs) else 'All runs'}: {images} were leaked into training "
        "(their patient, or a duplicate, is among those that the weights were made or chosen on). Their metrics are "
        "flattered."
        for images, names in found.items()
    ]
    sentences.append(
        f"The best of {len(comparison.runs)} runs is in part the luckiest one on these images: "
        "choose a run by its validation images, and use this page to say how it compares."
    )
    least = comparison.pairs * smallest_p(settings.resamples, len(comparison.clusters.stratum))
    if least >= 1 - settings.level and "paired bootstrap" in set(comparison.tests["test"]):
        sentences.append(
            f"No paired bootstrap can show a difference: with {grouped(settings.resamples)} resamples and "
            f"{comparison.pairs} pairs of runs its p is {min(least, 1):.3f} or more after Holm's correction. "
            "Give more resamples, or fewer runs."
        )
    return sentences


def leaderboard(runs: ComparedRuns) -> pd.DataFrame:
    """Put each run into one row, the best first: its name, its facts, its metrics with their confidence intervals.

    Columns: ``run``, the facts, then ``<metric>, <metric>_low, <metric>_high``; empty where there is none.
    """
    shown = list(runs.comparison.shown)
    values = runs.comparison.metrics.set_index(["run", "metric"])[["value", "low", "high"]]
    rows = [
        [
            run,
            *(runs.facts.get(run, {}).get(name) for name in runs.fact_names),
            *values.loc[[(run, metric) for metric in shown]].to_numpy().ravel(),
        ]
        for run in runs.comparison.runs
    ]
    ends = [f"{metric}{end}" for metric in shown for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["run", *runs.fact_names, *ends])


def printed_tables(runs: ComparedRuns) -> dict[str, Table]:
    """Lay out ``leaderboard`` (facts, metrics over all classes), ``class_metrics`` (if any is shown) and ``tests``."""
    of_classes = any(label for label, _ in runs.comparison.shown.values())
    classes = {"class_metrics": _class_table(runs.comparison)} if of_classes else {}
    return {"leaderboard": _leaderboard_table(runs), **classes, "tests": _tests_table(runs.comparison)}


def _leaderboard_table(runs: ComparedRuns) -> Table:
    comparison, settings, shared = runs.comparison, runs.comparison.settings, runs.shared_facts
    metrics = [metric for metric, key in comparison.shown.items() if not key[0]]
    columns = ["Run", *(title_of(comparison.shown[metric]) for metric in metrics)]
    rows = pd.DataFrame(_cells(comparison, metrics), columns=columns)
    for place, name in enumerate([name for name in runs.fact_names if name not in shared], start=1):
        texts = [fact_text(name, runs.facts.get(run, {}).get(name)) for run in comparison.runs]
        rows.insert(place, _fact_title(name).capitalize(), texts, allow_duplicates=True)
    note = (
        f"The best first, by {title_of(comparison.shown[settings.by])}. {grouped(comparison.n)} images; each metric "
        f"with its {level_text(settings.level)} confidence interval."
    )
    note += f" ECE in {settings.bins} bins." if "ece" in metrics else ""  # only equal bins compare
    note += _reasons(comparison.metrics, metrics)
    if same := "; ".join(f"{_fact_title(name)} {fact_text(name, value)}" for name, value in shared.items()):
        note += f" The same for all runs: {same}."
    return Table("Leaderboard", rows, 1, False, note)


def fact_text(name: str, value: object) -> str:
    """Write a fact: whole numbers in groups, seconds as a time, an unknown value as a dash."""
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


def _class_table(comparison: Comparison) -> Table:
    """Print the metrics of each class, the runs below each other; a cell stays empty where one isn't shown."""
    metrics = {key: metric for metric, key in comparison.shown.items() if key[0]}
    names = list(dict.fromkeys(name for _, name in metrics))
    labels = next(iter(comparison.tables.values()))["label"]
    rows = [
        [label, run, *cells, grouped(int((labels == label).sum()))]
        for label in comparison.classes
        if any(of == label for of, _ in metrics)
        for run, *cells in _cells(comparison, [metrics.get((label, name)) for name in names])
    ]
    columns = ["Class", "Run", *(spec_of(("class", name)).title for name in names), "Images"]
    level = f"{level_text(comparison.settings.level)} confidence interval"
    note = f"Each class against the rest, each metric with its {level}.{_reasons(comparison.metrics, metrics.values())}"
    return Table("Metrics of each class", pd.DataFrame(rows, columns=columns), 2, True, note)


def _cells(comparison: Comparison, metrics: Sequence[str | None]) -> list[list[str]]:
    """Write one row a run: its name, and metrics with their intervals; an empty cell for ``None``."""
    values = comparison.metrics.set_index(["run", "metric"])
    return [
        [run, *("" if name is None else _with_interval(values.loc[(run, name)], "value") for name in metrics)]
        for run in comparison.runs
    ]


def _tests_table(comparison: Comparison) -> Table:
    rows = [
        [
            f"{title_of(comparison.shown[str(metric)])}: {max(tests['test']) or 'no test'}",
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
        f"with its {level_text(comparison.settings.level)} confidence interval. Holm: corrected for {pairs} of "
        "runs in each metric, in a metric of each class for the classes too, but not for the number of metrics; the "
        "intervals are not corrected."
    )
    aucs = [metric for metric, key in comparison.shown.items() if "roc_auc" in (key[1], spec_of(key).mean_of)]
    if {"DeLong", "paired bootstrap"} <= set(comparison.tests["test"][comparison.tests["metric"].isin(aucs)]):
        note += (
            " DeLong's test is of one curve each: it compares the ROC-AUC of each class against the rest, and the mean "
            "over the classes is left to the bootstrap."
        )
    frame = pd.DataFrame(rows, columns=["Metric: test", "Runs", "Difference", "p", "p, Holm"])
    return Table("Differences", frame, 2, True, note + _reasons(comparison.tests, comparison.tested))


def _with_interval(row: pd.Series, column: str) -> str:
    """Write a number and, on a second line, its interval; differences carry their sign."""
    sign, between = ("+", " to ") if column == "difference" else ("", "–")
    if np.isnan(row["low"]):
        return _number(row[column], sign)
    return f"{_number(row[column], sign)}\n({_number(row['low'], sign)}{between}{_number(row['high'], sign)})"


def _number(value: float, sign: str) -> str:
    text = "n/a" if np.isnan(value) else f"{value:{sign}.3f}".replace("-", "−")
    return "0.000" if text in ("+0.000", "−0.000") else text


def _p(value: float) -> str:
    return "n/a" if np.isnan(value) else "< 0.001" if value < 0.0005 else f"{value:.3f}"


def _reasons(rows: pd.DataFrame, metrics: Iterable[str]) -> str:
    """Say why some of these metrics are missing, each reason once."""
    reasons = dict.fromkeys(reason for reason in rows["reason"][rows["metric"].isin(list(metrics))] if reason)
    return f" Missing: {'; '.join(reasons)}." if reasons else ""


CAPTIONS = {
    "confusion_matrices": f"Confusion matrices of the best {MOST_RUNS} runs at most: number of images, "
    "and share of the images of each label.",
    "roc_overlay": f"ROC curves of the best {MOST_RUNS} runs at most: each class against the rest, with the ROC-AUC.",
}


def write_comparison(runs: ComparedRuns, folder: Path) -> list[Path]:
    """Write a comparison, each file whole or not at all.

    Returns:
        ``comparison.html``, ``comparison.md``, ``comparison.tex``, ``leaderboard.csv``, ``metrics.csv`` and
        ``tests.csv`` (plain numbers), and the plots.
    """
    tables, plots = printed_tables(runs), save_comparison_plots(runs.comparison, folder)
    text = {"title": _title(runs.comparison), "verdict": verdict(runs), "warnings": warnings_of(runs)}
    page = render_page(
        "comparison.html.j2",
        folder / "comparison.html",
        text=text,
        tables=tables,
        images={name: data_uri(file) for name, file in plots.items()},
        captions=CAPTIONS,
    )
    parts = [f"# {plain(_title(runs.comparison))}", paragraph(verdict(runs)), bullets(warnings_of(runs))]
    for table in tables.values():
        parts += [f"## {plain(table.title)}", markdown(table).rstrip(), paragraph(table.note)]
    parts += [f"![{plain(CAPTIONS[name])}]({file.name})" for name, file in plots.items()]
    numbers = {"leaderboard": leaderboard(runs), "metrics": runs.comparison.metrics, "tests": runs.comparison.tests}
    return [
        page,
        write_text(folder / "comparison.md", "\n\n".join(parts) + "\n"),
        write_text(folder / "comparison.tex", latex_tables(tables)),
        *(write_text(folder / f"{name}.csv", to_csv(rows, lineterminator="\n")) for name, rows in numbers.items()),
        *plots.values(),
    ]


def _title(comparison: Comparison) -> str:
    return f"{len(comparison.runs)} runs on the same {grouped(comparison.n)} images"


def say_comparison(runs: ComparedRuns) -> None:
    """Show the verdict, the warnings, and metric by metric the runs and their differences.

    Many runs get only the metric that ranks them. Facts, other metrics and those of one class are in the files.
    """
    comparison, tables = runs.comparison, printed_tables(runs)
    console.heading(_title(comparison))
    console.say("result", verdict(runs))
    for warning in warnings_of(runs):
        console.warn(warning)
    metrics = [metric for metric in comparison.tested if not comparison.shown[metric][0]] or [comparison.settings.by]
    few = [comparison.settings.by] if len(metrics) * len(comparison.runs) > _MOST_ROWS else metrics
    rows = [
        [title_of(comparison.shown[metric]), run, cell.replace("\n", " ")]
        for metric in few
        for run, cell in _cells(comparison, [metric])
    ]
    frame = pd.DataFrame(rows, columns=["Metric", "Run", "Value"])
    board, tests = Table("Leaderboard", frame, 2, True, tables["leaderboard"].note), tables["tests"]
    if len(tests.rows) > _MOST_ROWS:
        own = (comparison.tests["metric"] == comparison.settings.by).to_numpy(bool)
        some = f"the tests of the metric that ranks the runs; all {len(own)} are in tests.csv"
        tests = replace(tests, rows=tests.rows[own], note=f"{tests.note} Shown are {some}.")
    for table in (board, tests):
        console.heading(table.title)
        console.show(rich_table(table))
        console.say("note", table.note)
    console.say("more", "facts, other metrics and those of one class are in leaderboard.csv and on the page")
