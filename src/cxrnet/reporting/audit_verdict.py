"""The verdict of an audit in words, computed from the looks and their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cxrnet.evaluation.audit import ACQUISITION, BORDER, CORNERS, HALF, LUNGS_OUT, OUTLINE, Look, findings
from cxrnet.reporting.wording import grouped, level_text

_FROM = {
    LUNGS_OUT: ("with the lungs blacked out", "most of the signal is not in the lungs"),
    BORDER: ("from the border alone", "the border tells the class"),
    CORNERS: ("from the four corners alone", "markers, letters or frames may stand there"),
    ACQUISITION: (
        "from size, bit depth, colour, black edges and letters in the corners alone",
        "the images of the classes were made in different ways",
    ),
    "source": ("from the source alone", "the classes come from different sources"),
    "view": ("from the view alone", "the classes were taken in different views"),
}
_PLACES = {
    LUNGS_OUT: "what is not in the lungs",
    BORDER: "the border",
    CORNERS: "the corners",
    ACQUISITION: "how the images were made",
    "source": "the source",
    "view": "the view",
    "corners": "the corners",
    "border": "the border",
}


@dataclass(frozen=True)
class Verdict:
    """What looks find, in sentences.

    Attributes:
        looks: all looks.
        classes: of the bundle.
        corner: the corner that tells most; empty where no finding is in the corners.
        lungs: ``masks`` or ``box``.
        level: level of the intervals, and of all looks together.
    """

    looks: Sequence[Look]
    classes: Sequence[str]
    corner: str
    lungs: str
    level: float

    @cached_property
    def found(self) -> list[Look]:
        """The looks that find something."""
        return findings(self.looks, self.level)

    @property
    def gist(self) -> str:
        """The verdict in one sentence."""
        level, looks = level_text(self.level), sum(look.counts for look in self.looks)
        if not looks:
            return "There is no verdict: nothing could be looked at."
        if not self.found:
            probed = any(look.counts and look.kind == "data" for look in self.looks)
            alone = "" if probed else "; there were no probes, so this says little"
            return (
                f"No shortcut was found: none of {looks} looks finds one, at {level} for all of them together{alone}."
            )
        by_label: dict[str, dict[str, None]] = {}
        for look in self.found:
            label = " or ".join(self.classes) if len(self.classes) == 2 else look.label
            by_label.setdefault(label, {})[_PLACES[look.name]] = None
        said = "; ".join(f"{label} from {_listed(list(places))}" for label, places in by_label.items())
        return f"A shortcut was found: {said} ({looks} looks, {level} for all of them together)."

    @property
    def details(self) -> list[str]:
        """A sentence a finding, what it may be instead, and how sure one can be of none."""
        findings = [self._planted(look) if look.kind == "planted" else self._region(look) for look in self.found]
        return [*findings, *self._cautions(), *self._undecided(), *self._room()]

    @property
    def sentences(self) -> list[str]:
        """The gist and the details."""
        return [self.gist, *self.details]

    def _of(self, look: Look) -> str:
        """Name what a look tells: a class, or which of two, as they share a ROC-AUC."""
        both = len(self.classes) == 2 and look.kind != "planted"
        return " or ".join(self.classes) if both else look.label

    def _region(self, look: Look) -> str:
        how, so = _FROM[look.name]
        if look.name == LUNGS_OUT and self.lungs == "box":
            how = "with the box for the lungs blacked out"
        in_corner = self.corner and look.name == CORNERS and look.kind == "data"
        where = f" Of the corners the one at the {self.corner} tells most." if in_corner else ""
        by = "the model's ROC-AUC" if look.kind == "model" else "the ROC-AUC of a linear probe"
        return (
            f"{self._of(look)}: {how} {by} is {_inline(look)} of {look.whole:.2f} with the whole image "
            f"(n = {grouped(look.n)}): {so}.{where}"
        )

    def _planted(self, look: Look) -> str:
        which = "that" if look.name == "border" else "those"
        return (
            f"The model follows {_PLACES[look.name]}: with {which} of an image of {look.label}, a share of "
            f"{_inline(look)} of {grouped(look.n)} images of other classes is predicted as {look.label}; with {which} "
            f"of their own class {look.whole:.2f}."
        )

    def _cautions(self) -> list[str]:
        """Say where what is left without the lungs may be the disease's: where the lungs lie tells the class too."""
        told = {look.label for look in self.found if look.name == LUNGS_OUT}
        return [
            f"Where the lungs lie tells {self._of(look)} with a ROC-AUC of {_inline(look)}: as the disease may change "
            "what a mask covers, so much of it need not be a shortcut."
            for look in self.looks
            if look.name == OUTLINE and look.label in told and look.low > 0.5
        ]

    def _undecided(self) -> list[str]:
        """List looks that tell a class, by their own interval, and perhaps most of what the whole image tells."""
        looks = [
            f"{self._of(look)} {_FROM[look.name][0]} {_inline(look)} of {look.whole:.2f}"
            for look in self.looks
            if look.counts and look.kind == "data" and look.low > 0.5 and look.share > HALF and look not in self.found
        ]
        why = "as chance may make it more than half of what the whole image tells"
        return [f"Undecided, {why}: {'; '.join(looks)}."] if looks else []

    def _room(self) -> list[str]:
        """Say how well a class may be told where nothing is found."""
        looks = [look for look in self.looks if look.counts and look.kind == "data" and not np.isnan(look.high)]
        if self.found or not looks:
            return []
        most = max(looks, key=lambda look: look.high)
        return [
            f"That is no proof of absence: {_FROM[most.name][0]} the ROC-AUC for {self._of(most)} is {_inline(most)} "
            f"of {most.whole:.2f} with the whole image (n = {grouped(most.n)}), the most that these looks leave room "
            "for."
        ]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _inline(look: Look) -> str:
    """Write a number with its interval: ``0.93 (0.90 to 0.95)``."""
    ends = "" if np.isnan(look.low) else f" ({look.low:.2f} to {look.high:.2f})"
    return f"{look.value:.2f}{ends}"
