"""What was measured against what was wanted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from statistics import median
from typing import Any, Literal

Sense = Literal["at least", "at most"]


@dataclass(frozen=True)
class Ratio:
    """One figure that is compared with a target.

    Attributes:
        name: what stands against what.
        value: ``None`` where one of the two wasn't measured.
        target: ``None`` where none was set.
        sense: on which side of the target it should be.
        unit: of the value; empty for a ratio.
        extremes: the lowest and the highest of several rounds, whose median the value is.
    """

    name: str
    value: float | None
    target: float | None = None
    sense: Sense = "at least"
    unit: str = ""
    extremes: tuple[float, float] | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; ``None`` where there is nothing to tell."""
        if self.value is None or self.target is None:
            return None
        return self.value >= self.target if self.sense == "at least" else self.value <= self.target

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "met": self.met}


def over_rounds(rounds: Sequence[Sequence[Ratio]]) -> list[Ratio]:
    """The median of each ratio over the rounds.

    What is compared ran within minutes of each other, whereas a machine changes its pace from one round to the next.
    A ratio that most rounds left out isn't there, and one that most rounds have no value of is ``None``.
    """
    by_name: dict[str, list[Ratio]] = {}
    for ratio in chain.from_iterable(rounds):
        by_name.setdefault(ratio.name, []).append(ratio)
    return [_median(found, len(rounds)) for found in by_name.values() if 2 * len(found) >= len(rounds)]


def _median(found: Sequence[Ratio], rounds: int) -> Ratio:
    values = [ratio.value for ratio in found if ratio.value is not None]
    if not values or 2 * len(values) < rounds:
        return replace(found[0], value=None)
    return replace(found[0], value=median(values), extremes=(min(values), max(values)))


def quotient(a: float | None, b: float | None) -> float | None:
    """``a / b``; ``None`` where one of them is, or b is 0."""
    return a / b if a is not None and b else None


def repaid_after(price: float | None, slow: float | None, fast: float | None) -> float | None:
    """After how many images a faster rate (images a second) has made up for the seconds that it costs at first.

    ``price = n / slow - n / fast``, and 0 where there is no price; ``None`` where one of them is, or where fast is no
    faster.
    """
    if price is None or not slow or not fast or fast <= slow:
        return None
    return max(0.0, price) / (1 / slow - 1 / fast)


def difference(a: float | None, b: float | None) -> float | None:
    """``a - b``; ``None`` where one of them is."""
    return a - b if a is not None and b is not None else None
