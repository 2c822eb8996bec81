"""The group ``evaluation`` of the configuration: what is computed from the predictions."""

from dataclasses import dataclass, field
from typing import Literal

from cxrnet.core.schema import need

Kind = Literal["equal_width", "equal_mass"]  # of the bins of a reliability diagram
LEAST = 100  # resamples: fewer say nothing of the outer 2.5 %
SHARE = "a number between 0 and 1"


@dataclass(frozen=True)
class Calibration:
    """Bins of the reliability diagram and of every ECE.

    Attributes:
        bins: number of bins.
        kind: equal_width, or equal_mass (as many images in each bin).
    """

    bins: int = 15
    kind: Kind = "equal_width"

    def __post_init__(self) -> None:
        """Refuse a number out of range."""
        need(self.bins > 0, "evaluation.calibration.bins", self.bins, "a whole number from 1 on")


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit over threshold probabilities.

    Attributes:
        thresholds: lowest and highest probability from which on to act.
        prevalence: prevalence at which the net benefit is stated; null takes that of the images.
    """

    thresholds: tuple[float, float] = (0.0, 0.5)
    prevalence: float | None = 0.05

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        first, last = self.thresholds
        key = "evaluation.decision_curve"
        need(0 <= first < last < 1, f"{key}.thresholds", list(self.thresholds), "two rising numbers from 0 to below 1")
        known = self.prevalence is None or 0 < self.prevalence < 1
        need(known, f"{key}.prevalence", self.prevalence, f"{SHARE}, or null")


@dataclass(frozen=True)
class DeferralSettings:
    """Selective prediction.

    Attributes:
        shares: shares of the images that are deferred to a reader, the least certain first.
    """

    shares: tuple[float, ...] = (0.1, 0.2, 0.3)

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        within = all(0 < share < 1 for share in self.shares)
        need(within, "evaluation.deferral.shares", list(self.shares), f"each {SHARE}")


@dataclass(frozen=True)
class Evaluation:
    """The group ``evaluation``.

    Attributes:
        resamples: number of bootstrap resamples for the confidence intervals; 0 for none.
        level: level of the confidence intervals.
        seed: seed of the bootstrap.
        calibration: bins of the reliability diagram and of every ECE.
        prevalences: prevalences at which predictive values are stated.
        missed: share of the negative predictions that may be wrong, for a class to be ruled out by one; set your own.
        decision_curve: net benefit over threshold probabilities.
        deferral: selective prediction.
        fewest: number of images of a class below which the metrics of a subgroup come with a warning.
    """

    resamples: int = 2000
    level: float = 0.95
    seed: int = 0
    calibration: Calibration = field(default_factory=Calibration)
    prevalences: tuple[float, ...] = (0.005, 0.05, 0.2)
    missed: float = 0.01
    decision_curve: DecisionCurve = field(default_factory=DecisionCurve)
    deferral: DeferralSettings = field(default_factory=DeferralSettings)
    fewest: int = 20

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        enough = self.resamples == 0 or self.resamples >= LEAST
        need(enough, "evaluation.resamples", self.resamples, f"a whole number from {LEAST} on, or 0 for no intervals")
        need(0 < self.level < 1, "evaluation.level", self.level, f"{SHARE}, as 0.95")
        shares = all(0 < prevalence < 1 for prevalence in self.prevalences)
        need(shares, "evaluation.prevalences", list(self.prevalences), f"each {SHARE}, as [0.05, 0.2]")
        need(0 < self.missed < 1, "evaluation.missed", self.missed, f"{SHARE}, as 0.01")
        need(self.fewest >= 0, "evaluation.fewest", self.fewest, "a whole number from 0 on")
