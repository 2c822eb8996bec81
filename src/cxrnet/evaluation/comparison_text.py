"""What a comparison says in words, computed from its numbers."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

import pandas as pd

from cxrnet.evaluation.comparison import Comparison
from cxrnet.evaluation.comparison_printing import title_of
from cxrnet.evaluation.paired_tests import smallest_p
from cxrnet.evaluation.wording import grouped

Seen = Mapping[str, Set[str]]
"""By run, the images that it had seen before it was tested on them: its figures are flattered by them. A run of which
that isn't known is left out."""


@dataclass(frozen=True)
class Text:
    """The words of a comparison."""

    title: str
    verdict: str
    """Which run is the best, and which of the others it is shown to be better than."""
    warnings: list[str]
    """What a reader must know before the numbers, a sentence each."""


def text_of(comparison: Comparison, seen: Seen) -> Text:
    """Say what a comparison found; what the runs had seen comes before what is to be said of the numbers."""
    return Text(
        title=f"{len(comparison.runs)} runs on the same {grouped(comparison.n)} images",
        verdict=_verdict(comparison, seen),
        warnings=[*_seen_warnings(comparison, seen), *_warnings(comparison)],
    )


def _verdict(comparison: Comparison, seen: Seen) -> str:
    """The best run, with the tests of it against each other run that is not less flattered than it.

    Better is what the corrected p and the confidence interval of the difference both show: they may be of two tests.
    """
    best, title = comparison.runs[0], title_of(comparison.by, comparison)
    figures = comparison.figures
    figure = figures[(figures["run"] == best) & (figures["metric"] == comparison.by)].iloc[0]
    if pd.isna(figure["value"]):
        return f"No run has a figure for {title}: {figure['reason']}."
    interval = f" ({comparison.level:.0%} interval {figure['low']:.3f}–{figure['high']:.3f})"
    ends = "" if pd.isna(figure["low"]) else interval
    tests = comparison.tests[(comparison.tests["metric"] == comparison.by) & (comparison.tests["a"] == best)]
    says = f"{best} has the best figure for {title}: {figure['value']:.3f}{ends}."
    less = tests["b"].map(lambda run: _less_flattered(run, best, seen)).to_numpy(bool)
    if less.any():
        says = f"{says} {_flattered(comparison, best, list(tests['b'][less]), seen)}"
    if less.all():
        return says
    tests = tests[~less]
    shown = (tests["p_holm"] < 1 - comparison.level) & ~((tests["low"] <= 0) & (tests["high"] >= 0))
    better, others = (_names(list(tests["b"][rows])) for rows in (shown, ~shown))
    if not better:
        return f"{says} The tests do not show it to be better than {others}."
    return f"{says} The tests show it to be better than {better}{f', but not than {others}' if others else ''}."


def _less_flattered(run: str, best: str, seen: Seen) -> bool:
    """Whether the best run had seen images that this one had not, as far as is known."""
    return not seen.get(best, frozenset()) <= seen.get(run, frozenset())


def _flattered(comparison: Comparison, best: str, others: list[str], seen: Seen) -> str:
    not_they = "which had not seen all of these" if all(run in seen for run in others) else "of which that is not known"
    return (
        f"But it had seen {_images(comparison, seen[best])} before it was tested on them (their patient, or a copy), "
        f"which flatters it: it is not shown to be better than {_names(others)}, {not_they}."
    )


def _images(comparison: Comparison, seen: Set[str]) -> str:
    return f"{grouped(len(seen))} of the {grouped(comparison.n)} images"


def _seen_warnings(comparison: Comparison, seen: Seen) -> list[str]:
    """Say of which runs how many images were seen before; those of which it is the same number share a sentence."""
    found: dict[str, list[str]] = {}
    for run in comparison.runs:
        if images := seen.get(run):
            found.setdefault(_images(comparison, images), []).append(run)
    return [
        f"{', '.join(runs) if len(runs) < len(comparison.runs) else 'All runs'}: {images} were seen before: their "
        "patient, or a copy, is among those that the weights were made or chosen on. The figures are flattered."
        for images, runs in found.items()
    ]


def _names(runs: list[str]) -> str:
    return ", ".join(runs) if len(runs) <= 4 else f"{len(runs)} others"


def _warnings(comparison: Comparison) -> list[str]:
    sentences = [
        f"The best of {len(comparison.runs)} runs is in part the luckiest one on these images: "
        "choose a run by its validation images, and use this page to say how it compares."
    ]
    units, used = len(comparison.units.stratum), set(comparison.tests["test"])
    least = comparison.pairs * smallest_p(comparison.resamples, units)
    if least >= 1 - comparison.level and "paired bootstrap" in used:
        sentences.append(
            f"No paired bootstrap can show a difference: with {grouped(comparison.resamples)} resamples and "
            f"{comparison.pairs} pairs of runs its p is {min(least, 1):.3f} or more after Holm's correction. "
            "Give more resamples, or fewer runs."
        )
    return sentences
