"""What a comparison says in words, computed from its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cxrnet.evaluation.comparison import Comparison
from cxrnet.evaluation.comparison_tables import title_of
from cxrnet.evaluation.paired_tests import smallest_p
from cxrnet.evaluation.wording import grouped


@dataclass(frozen=True)
class Text:
    """The words of a comparison."""

    title: str
    verdict: str
    """Which run is the best, and which of the others it is shown to be better than."""
    warnings: list[str]
    """What a reader must know before the numbers, a sentence each."""


def text_of(comparison: Comparison, warnings: Sequence[str] = ()) -> Text:
    """Say what a comparison found; ``warnings`` about the runs come before those about the numbers."""
    return Text(
        title=f"{len(comparison.runs)} runs on the same {grouped(comparison.n)} images",
        verdict=_verdict(comparison),
        warnings=[*warnings, *_warnings(comparison)],
    )


def _verdict(comparison: Comparison) -> str:
    """The best run, with the tests of it against each other run."""
    best, title = comparison.runs[0], title_of(comparison.by, comparison)
    figures = comparison.figures
    figure = figures[(figures["run"] == best) & (figures["metric"] == comparison.by)].iloc[0]
    if pd.isna(figure["value"]):
        return f"No run has a figure for {title}: {figure['reason']}."
    interval = f" ({comparison.level:.0%} interval {figure['low']:.3f}–{figure['high']:.3f})"
    ends = "" if pd.isna(figure["low"]) else interval
    tests = comparison.tests[(comparison.tests["metric"] == comparison.by) & (comparison.tests["a"] == best)]
    shown = tests["p_holm"] < 1 - comparison.level
    better, others = (_names(list(tests["b"][rows])) for rows in (shown, ~shown))
    says = f"{best} has the best figure for {title}: {figure['value']:.3f}{ends}."
    if not better:
        return f"{says} The tests do not show it to be better than {others}."
    return f"{says} The tests show it to be better than {better}{f', but not than {others}' if others else ''}."


def _names(runs: list[str]) -> str:
    return ", ".join(runs) if len(runs) <= 4 else f"{len(runs)} others"


def _warnings(comparison: Comparison) -> list[str]:
    sentences = [
        f"The best of {len(comparison.runs)} runs is in part the luckiest one on these images: "
        "choose a run by its validation images, and use this page to say how it compares."
    ]
    units, kind, used = len(comparison.units.stratum), comparison.units.kind, set(comparison.tests["test"])
    if units < comparison.n and "exact McNemar" in used:
        sentences.append(
            f"The {grouped(comparison.n)} images are of {grouped(units)} independent units (unit: {kind}). McNemar's "
            "test takes every image for independent, so its p may be too small; the other tests take a unit as a whole."
        )
    least = comparison.pairs * smallest_p(comparison.resamples, units)
    if least >= 1 - comparison.level and "paired bootstrap" in used:
        sentences.append(
            f"No paired bootstrap can show a difference: with {grouped(comparison.resamples)} resamples and "
            f"{comparison.pairs} pairs of runs its p is {min(least, 1):.3f} or more after Holm's correction. "
            "Give more resamples, or fewer runs."
        )
    return sentences
