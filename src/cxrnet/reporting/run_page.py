"""The page of a result in MLflow: the metrics on a run's page, the table of all, the description in Markdown.

The metrics are few, so that a page of charts can be read: the headline with its confidence intervals, sensitivity and
specificity of each class, one of each baseline. All others are in ``metrics.json`` and in the table.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import pandas as pd

from cxrnet.evaluation.metrics import Evaluation, Metric, flat
from cxrnet.evaluation.over_runs import Moments
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

    Args:
        results: of the run.
        warnings: what a reader must know before the metrics.
        command: that makes the run.
    """
    return {
        "metrics": headline_metrics(results),
        "table": metrics_table(_all_evaluations(results)),
        "description": description(results, warnings, command),
    }


def headline_metrics(results: Results) -> dict[str, float]:
    """Name the metrics of the headline split: ``test/accuracy``, ``test/accuracy/ci_low``, ``test/sensitivity/COVID``.

    Beside the balanced accuracy stands that of each baseline, ``test/balanced_accuracy/thumbnail``. Metrics of val are
    named ``final_val/...``, as ``val/...`` are the curves. Metrics without a value are left out.
    """
    prefix = _prefix(results.headline)
    values = shown_metrics(results.metrics[results.headline], prefix)
    for name, baseline in results.baselines.items():
        if (value := baseline["balanced_accuracy"]["value"]) is not None:
            values[f"{prefix}/balanced_accuracy/{name}"] = value
    return values


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


def metrics_table(evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    """Lay out all metrics, one row each: ``metric`` (``test/f1/COVID``), ``value``, ``ci_low``, ``ci_high``, ``n``."""
    rows = [
        {"metric": "/".join(filter(None, (prefix, name, label))), **_cells(metric)}
        for prefix, evaluation in evaluations.items()
        for _, (label, name), metric in flat(evaluation)
    ]
    return pd.DataFrame(rows)


def description(results: Results, warnings: Sequence[str], command: str) -> str:
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


def _all_evaluations(results: Results) -> dict[str, Evaluation]:
    kept = {
        f"{split}_without_deferred": each.deferral.kept
        for split, each in results.analyses.items()
        if each.deferral is not None and each.deferral.kept
    }
    unleaked = {} if results.without_leaked is None else {f"{results.headline}_without_leaked": results.without_leaked}
    baselines = {f"baseline/{name}": each for name, each in results.baselines.items()}
    return {**results.metrics, **unleaked, **kept, **baselines}


def _cells(metric: Metric) -> dict[str, float | None]:
    low, high = metric.get("interval", (None, None))
    return {"value": metric["value"], "ci_low": low, "ci_high": high, "n": metric["n"]}


def _prefix(split: str) -> str:
    return "final_val" if split == "val" else split
