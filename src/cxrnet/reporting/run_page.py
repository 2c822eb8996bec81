"""The page of a result in MLflow: the metrics on a run's page, the table of all, the description in Markdown.

The metrics are few, so that a page of charts can be read: the headline with its confidence intervals, sensitivity and
specificity of each class, one of each baseline. All others are in ``metrics.json`` and in the table.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import pandas as pd

from cxrnet.evaluation.comparison import Moments
from cxrnet.evaluation.metrics import Evaluation, Metric, flat
from cxrnet.reporting.rendering import Table, bullets, code, markdown
from cxrnet.reporting.results import Results
from cxrnet.reporting.wording import BASELINES, HEADLINE, SPLIT_NAMES, interval_text, number_text

SHOWN_PER_CLASS = ("sensitivity", "specificity")


class RunPage(TypedDict):
    """The arguments of :meth:`cxrnet.tracking.tracker.TrackedRun.log_page`."""

    metrics: dict[str, float]
    table: pd.DataFrame
    description: str


def run_page(results: Results, warnings: Sequence[str], command: str) -> RunPage:
    """Collect what MLflow shows of a run.

    The metrics are ``test/accuracy``, ``test/accuracy/ci_low``, ``test/sensitivity/COVID``; beside the balanced
    accuracy stands that of each baseline, ``test/balanced_accuracy/thumbnail``. Those of val are named
    ``final_val/...``, as ``val/...`` are the curves. Metrics without a value are left out. The table has all metrics,
    one row each: ``metric`` (``test/f1/COVID``), ``value``, ``ci_low``, ``ci_high``, ``n``.
    """
    prefix = "final_val" if results.headline == "val" else results.headline
    values = shown_metrics(results.metrics[results.headline], prefix)
    for name, baseline in results.baselines.items():
        if (value := baseline["balanced_accuracy"]["value"]) is not None:
            values[f"{prefix}/balanced_accuracy/{name}"] = value
    evaluations = dict(results.metrics)
    if results.without_leaked is not None:
        evaluations[f"{results.headline}_without_leaked"] = results.without_leaked
    evaluations |= {f"{split}_without_deferred": each for split, each in results.without_deferred.items()}
    evaluations |= {f"baseline/{name}": each for name, each in results.baselines.items()}
    return {
        "metrics": values,
        "table": _metrics_table(evaluations),
        "description": _description(results, warnings, command),
    }


def shown_metrics(evaluation: Evaluation, prefix: str) -> dict[str, float]:
    """Name the headline metrics of an evaluation with their confidence intervals, and those of each class."""
    values: dict[str, float] = {}
    for _, (label, name), metric in flat(evaluation):
        if metric["value"] is None or name not in (SHOWN_PER_CLASS if label else HEADLINE):
            continue
        path = f"{prefix}/{name}/{label}" if label else f"{prefix}/{name}"
        values[path] = metric["value"]
        if "interval" in metric and not label:
            values[f"{path}/ci_low"], values[f"{path}/ci_high"] = metric["interval"]
    return values


def moments_metrics(moments: Mapping[str, Moments], prefix: str) -> dict[str, float]:
    """Name mean, standard deviation and confidence interval over runs: ``over_runs/accuracy/mean``, ``.../sd``."""
    values: dict[str, float] = {}
    for name, each in moments.items():
        values[f"{prefix}/{name}/mean"] = each.mean
        if each.sd is not None:
            values[f"{prefix}/{name}/sd"] = each.sd
        if each.interval is not None:
            values[f"{prefix}/{name}/ci_low"], values[f"{prefix}/{name}/ci_high"] = each.interval
    return values


def _metrics_table(evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    rows = []
    for prefix, evaluation in evaluations.items():
        for _, (label, name), metric in flat(evaluation):
            low, high = metric.get("interval", (None, None))
            numbers = {"value": metric["value"], "ci_low": low, "ci_high": high, "n": metric["n"]}
            rows.append({"metric": "/".join(filter(None, (prefix, name, label))), **numbers})
    return pd.DataFrame(rows)


def _description(results: Results, warnings: Sequence[str], command: str) -> str:
    """Write the text on top of a run's page: the headline metrics, the warnings, the command."""
    evaluation = results.metrics[results.headline]
    shown: list[Metric] = [evaluation[name] for name in HEADLINE]
    columns = {
        "Metric": list(HEADLINE.values()),
        f"{SPLIT_NAMES[results.headline]} (n = {evaluation['accuracy']['n']})": list(map(number_text, shown)),
        "Confidence interval": list(map(interval_text, shown)),
    }
    if "thumbnail" in results.baselines:
        columns[BASELINES["thumbnail"]] = [number_text(results.baselines["thumbnail"][name]) for name in HEADLINE]
    table = Table("", pd.DataFrame(columns), text=1, grouped=False, note="")
    parts = [markdown(table), f"**Warnings**\n\n{bullets(warnings)}\n" if warnings else "", code(command)]
    return "\n".join(filter(None, parts))
