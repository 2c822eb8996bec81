"""The tables of a comparison, as numbers."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxrnet.evaluation.comparison import Comparison

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
