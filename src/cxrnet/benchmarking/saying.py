"""A benchmark on the console: what was measured on what, and what was wanted."""

from rich.table import Table

from cxrnet.benchmarking.jobs import Numbers
from cxrnet.benchmarking.measuring import Measured
from cxrnet.benchmarking.plan import NUMBERS
from cxrnet.benchmarking.ratios import Ratio
from cxrnet.benchmarking.results import GroupResult
from cxrnet.core import console


def say_machine(facts: Numbers) -> None:
    """What everything is measured on."""
    console.heading("Machine")
    console.say("processor", f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gb']:.0f} GB")
    console.say("device", facts["accelerator"] or facts["device"])
    versions = facts["versions"]
    console.say("versions", ", ".join(f"{name} {versions[name]}" for name in ("python", "torch") if name in versions))


def say_group(result: GroupResult) -> None:
    """The medians of each job, then the ratios with their targets."""
    console.heading(result.title)
    table = _table("median", *(NUMBERS[name] for name in result.numbers))
    for one in result.measured:
        table.add_row(one.job.name, *(_cell(one, name) for name in result.numbers))
    console.show(table)
    for one in result.measured:
        if one.missing is not None:
            console.say("missing", f"{one.job.name}: {one.missing}")
        if one.failed is not None:
            console.warn(f"{one.job.name} failed: {one.failed}")
    table = _table("ratio", "value", "target", "")
    for ratio in result.ratios:
        table.add_row(ratio.name, *_cells(ratio))
    console.show(table)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 2))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _cell(one: Measured, name: str) -> str:
    value = one.medians.get(name)
    return "–" if value is None else number_text(float(value))


def _cells(ratio: Ratio) -> tuple[str, str, str]:
    if ratio.value is None:
        return "not measured", "", ""
    value = f"{number_text(ratio.value)} {ratio.unit}".strip()
    if ratio.extremes is not None and ratio.extremes[0] < ratio.extremes[1]:
        value += f" ({number_text(ratio.extremes[0])} to {number_text(ratio.extremes[1])})"
    if ratio.target is None:
        return value, "", ""
    sign = "≥" if ratio.sense == "at least" else "≤"
    return value, f"{sign} {number_text(ratio.target)} {ratio.unit}".strip(), "met" if ratio.met else "missed"


def number_text(value: float) -> str:
    """Three figures that count; no decimals from a hundred on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
