"""The facts of a run for report and model card: plain values, put together by those who know the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxrnet.evaluation.calibration import Temperature
from cxrnet.evaluation.metrics import Evaluation
from cxrnet.evaluation.over_runs import Moments
from cxrnet.reporting.analysis import Analysis


@dataclass(frozen=True)
class PhaseFacts:
    """One phase of the training."""

    name: str
    trainable: str
    """As in the config: ``head``, ``all``, ``last 100``."""
    parameters: int
    """Trained in this phase."""
    epochs: int
    keep: str
    """``last`` or ``best``."""
    kept_epoch: int
    """Counted from 1, running on across phases."""
    monitor: str
    value: float
    """Value of ``monitor`` at ``kept_epoch``."""
    seconds: float
    cached: bool
    """Trained on features computed once."""
    kept: bool
    """Its weights are the result."""
    lr: float
    """Learning rate at the start."""
    decay: float
    """Weight decay over the whole phase."""


@dataclass(frozen=True)
class SplitFacts:
    """Images and patients of one split."""

    images: Mapping[str, int]
    """Class to number of images."""
    patients: int | None
    """None where patients are not known."""


@dataclass(frozen=True)
class PointFacts:
    """The probability from which on a class is predicted."""

    threshold: float
    chosen: str
    """How: ``"specificity >= 0.99"``, or ``"given"``."""


@dataclass(frozen=True)
class DeferralFacts:
    """The rule that defers predictions to a reader."""

    threshold: float
    """Predictions of a lower certainty are."""
    share: float
    """Share of the validation images that was asked for."""
    certainty: str = "probability"
    """The measure of certainty, in words."""


@dataclass(frozen=True)
class ResultFacts:
    """The facts of every report on a table of predictions. Plain values only."""

    title: str
    """``"MobileNetV2 on covid19_image"``."""
    summary: str
    """One or two sentences: what was trained, on what, from which weights."""
    created: str
    """Date and time, as a person reads it."""
    warnings: Sequence[str]
    """Warnings that stand above the numbers, a sentence each."""
    known_issues: Sequence[str]
    """Documented issues of the data, a sentence each."""
    classes: Sequence[str]
    metrics: Mapping[str, Evaluation]
    """By split; ``test`` makes the headline, or ``val`` where there is no test split."""
    analyses: Mapping[str, Analysis]
    """By split, what the metrics mean."""
    baselines: Mapping[str, Evaluation]
    """``majority`` and ``thumbnail`` on the split of the headline."""
    without_leaked: Evaluation | None
    """The headline without the images that leaked into training; None where there are none."""
    level: float
    """Level of the confidence intervals."""
    environment: Mapping[str, str]
    """Facts to reproduce the run: git revision, seed, versions, digest, run id, folder."""
    command: str
    config_yaml: str
    plots: Mapping[str, Path]
    """By name, from :func:`cxrnet.reporting.results.write_results`."""
    weighing: Sequence[str] = field(default=(), kw_only=True)
    """Effect of class weights, a balanced sampler or costs, in sentences; empty where there were none."""

    @property
    def headline(self) -> str:
        """The split that the result is stated on."""
        return "test" if "test" in self.metrics else "val"


@dataclass(frozen=True)
class RunFacts(ResultFacts):
    """Everything the report and the model card say of one run."""

    data: Mapping[str, SplitFacts]
    """By split, in the order of reading: ``train``, ``val``, ``test``."""
    points: Mapping[str, PointFacts]
    """By class; those without one are predicted where no threshold is reached."""
    chosen: Sequence[str]
    """Effect of the thresholds that a rule chose on the validation images, in sentences."""
    deferral: DeferralFacts | None
    """None where no prediction is deferred."""
    temperature: Temperature
    methods: Mapping[str, str]
    """Contents of a methods section: ``sources``, ``preprocessing``, ``selection``, ``split``, ``level``
    (at which the splits are disjoint), ``initial weights``, ``training``, ``final model``, ``software``; and
    ``characteristics`` (of the patients in each split), empty where nothing is known of them."""
    phases: Sequence[PhaseFacts]
    decision: str = field(default="", kw_only=True)
    """What decision weights predict where no threshold is reached; empty where none decide."""


@dataclass(frozen=True)
class RepeatFacts:
    """One run of a repetition."""

    name: str
    """Name of the run's folder, below that of all: ``"seed0_fold1of3"``."""
    images: Mapping[str, int]
    """By split."""
    metrics: Evaluation
    """On its own test images, without intervals."""
    temperature: float
    points: Mapping[str, float]
    """Threshold by class."""
    deferral_threshold: float | None
    """Predictions of a lower certainty are deferred to a reader."""


@dataclass(frozen=True)
class RepeatsFacts(ResultFacts):
    """Everything the report says of the same run over folds or seeds."""

    meaning: str
    """Which predictions the result is of, and what the spread is over, in sentences."""
    runs: Sequence[RepeatFacts]
    moments: Mapping[str, Moments]
    """By metric, over the runs; of several seeds with folds, over the folds."""
    seeds: Mapping[str, Moments]
    """By metric, over the seeds, each with the predictions of all of its folds together; empty where there are not
    both."""
