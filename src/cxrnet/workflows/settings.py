"""All keys of each command with their types and defaults: what Hydra composes ``conf/`` on.

Each class is the schema of the command of its name; ``conf/<command>.yaml`` holds what differs, the groups that it is
composed of, and what is Hydra's. ``python -m cxrnet.<command> --help`` shows the keys with what is said of them here.
This module imports no torch.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from cxrnet.cli.trainer_arguments import Trainer
from cxrnet.core.schema import need
from cxrnet.data.settings import Data, Fix, LungSource, OnError
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.settings import LEAST, Evaluation
from cxrnet.models.settings import Model
from cxrnet.training.schedule import Schedule, check_precision


@dataclass(frozen=True)
class Tracking:
    """The group ``tracking``.

    Attributes:
        enabled: false leaves MLflow out; everything still lies in the run's folder.
        experiment: MLflow experiment that the run is put in.
        uri: address of the server or file; null takes MLFLOW_TRACKING_URI, else a sqlite file below outputs.
        system_metrics: true tracks the use of processors, memory and GPUs; it needs pip install 'cxrnet[system]'.
    """

    enabled: bool = True
    experiment: str = "cxrnet"
    uri: str | None = None
    system_metrics: bool = False


@dataclass(frozen=True)
class Report:
    """The pictures of a report.

    Attributes:
        images: images of each group (errors and hits of a class, duplicates, augmented samples); 0 leaves all pictures
            of X-rays out, which may not leave a house, and the report says so.
    """

    images: int = 6

    def __post_init__(self) -> None:
        """Refuse a number out of range."""
        need(0 <= self.images <= 100, "report.images", self.images, "a whole number from 0 to 100")


@dataclass(frozen=True, kw_only=True)
class Train:
    """``python -m cxrnet.train``.

    Attributes:
        seed: split, starting weights of the head, order of the images, augmentation all follow from it.
        finetune: true enables the phases after the head.
        compile: torch.compile; the first steps of every phase take a minute or more.
        test: false leaves the test images alone, as a search must; a sweep then tests the best of its jobs in the end.
        resume: the folder of a run or a sweep: it goes on where it stopped, in the same MLflow run.
        folds: a number: as many runs, each with another part of the data as its test split, and their pooled
            predictions.
        folds_by: patient parts patients (and duplicates); image parts images, to see what that does to a result.
        seeds: a list: the same run with each of these seeds.
        operating_points: {class name: from which probability on it is predicted}, a number or what it shall reach on
            the validation images, as {COVID: {specificity: 0.99}}, {COVID: {sensitivity: 0.95}} or
            {COVID: {youden: true}}; null takes the most probable class.
        defer: a share, as 0.1: the least certain predictions are deferred to a reader, a tenth of the validation
            images; null defers none.
        keep_examples: true keeps thumbnails of up to 1,000 training and validation images in the bundle, for the page
            of cxrnet.serve to show those most like an image; pictures of patients then go where the bundle goes.
        outputs: everything that a run writes lies below this folder.
        cache: decoded images, duplicates and outputs of frozen layers, which all runs share; what is deleted is made
            anew; null keeps nothing.
    """

    data: Data
    model: Model
    augment: dict[str, Any]
    schedule: Schedule
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: Trainer = field(default_factory=Trainer)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    report: Report = field(default_factory=Report)
    tracking: Tracking = field(default_factory=Tracking)
    seed: int = 0
    finetune: bool | None = None  # Hydra lets +finetune=true fill a null, but not replace a value
    compile: bool = False
    test: bool = True
    resume: str | None = None
    folds: int | None = None
    folds_by: Literal["patient", "image"] = "patient"
    seeds: list[int] | None = None
    operating_points: dict[str, Any] | None = None
    defer: float | None = None
    keep_examples: bool = False
    outputs: str = "outputs"
    cache: str | None = "${outputs}/cache"

    def __post_init__(self) -> None:
        """Refuse what doesn't go together.

        Raises:
            CxrnetError: something doesn't, or a number is out of range.
        """
        _check_seeds(self.seed, **{"data.seed": self.data.seed, "evaluation.seed": self.evaluation.seed})
        _check_outputs(self.outputs)
        need(self.defer is None or 0 < self.defer < 1, "defer", self.defer, "a number between 0 and 1, or null")
        # What `auto` comes to is known to torch alone: cxrnet.workflows.build.check_trainer sees that.
        check_precision(self.trainer.precision, on_cpu=self.trainer.accelerator == "cpu")
        if not self.test and (self.folds or self.seeds):
            raise CxrnetError("test: false, but folds and seeds are compared on their test images; leave test out")
        if self.data.batch_size == 1 and self.model.batch_norm:
            raise CxrnetError(
                "data.batch_size: 1, but the batch norms of the head (model.batch_norm=true) need several images; give "
                "data.batch_size=2 or more, or model.batch_norm=false"
            )
        if self.model.output == "sigmoid" and self.data.classes is None:  # not left to the alphabet
            raise CxrnetError(
                "data.classes: model.output=sigmoid needs to know the positive class; give [negative, positive]"
            )


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a bundle runs.

    Attributes:
        batch_size: number of images in a batch.
        device: auto, cpu or cuda: where the network runs.
    """

    batch_size: int = 32
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse a number out of range."""
        need(self.batch_size > 0, "batch_size", self.batch_size, "a whole number from 1 on")


@dataclass(frozen=True, kw_only=True)
class Predicting(Running):
    """How a bundle predicts.

    Attributes:
        prior: how frequent classes are where the model is to be used, as {COVID: 0.05}; those that are not named
            share the rest as in training. Thresholds were chosen at the training prevalences and stay; null takes
            these.
    """

    prior: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluate(Predicting):
    """``python -m cxrnet.evaluate``.

    Attributes:
        bundle: the folder of a bundle or of a run, the id of an MLflow run, or models:/<name>@<alias>. Beside a bundle
            alone there are no training images to look for duplicates of and no internal result, which is said.
        sets: data sets to evaluate on besides data, or in its place. +external=[<option>, ...], or +external={<name>:
            <option>, ...} where one option serves several times, puts the options of data here, each below its name:
            sets.covid19_image.root=<folder>. All their images are test images, whatever split is published.
        classes: by name of a data set (that of data is its option), the class of the bundle by the data set's own
            label; null leaves its images out. classes.covid_chestxray={covid: COVID, non_covid: null}.
        gate: true leaves images out of the metrics that the bundle's gate turns away, and counts them; false evaluates
            all.
        seed: seed of the bootstrap, and of data options that draw.
        outputs: everything that a command writes lies below this folder.
        cache: decoded images, duplicates and outputs of frozen layers, which all runs share; null keeps nothing.
    """

    bundle: str
    data: Data | None = None
    gate: bool = True
    sets: dict[str, Data] = field(default_factory=dict)
    classes: dict[str, Any] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    report: Report = field(default_factory=Report)
    tracking: Tracking = field(default_factory=Tracking)
    seed: int = 0
    outputs: str = "outputs"
    cache: str | None = "${outputs}/cache"

    def __post_init__(self) -> None:
        """Refuse a number out of range."""
        super().__post_init__()
        _check_seeds(self.seed, **{"evaluation.seed": self.evaluation.seed})
        _check_outputs(self.outputs)


@dataclass(frozen=True)
class Sheet:
    """Images in the pictures of a prepared data set.

    Attributes:
        per_class: images of each class on samples.png.
        augmented: rows of each class on augmented.png.
        views: views of each image on augmented.png.
    """

    per_class: int = 8
    augmented: int = 2
    views: int = 6

    def __post_init__(self) -> None:
        """Refuse a number out of range."""
        for name, value in vars(self).items():
            need(value > 0, f"sheet.{name}", value, "a whole number from 1 on")


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """``python -m cxrnet.prepare``.

    Attributes:
        seed: the split follows from it, and the augmentation on augmented.png.
        fix: writes manifest_fixed.parquet, in which what is asked for is mended, and fixes.csv with a reason for every
            image; no file of the data is touched.
        weights: of MobileNetV2, on whose features labels are doubted: auto (those in the local cache; nothing is
            downloaded), a file, or none, which takes 8 x 8 thumbnails.
        outputs: everything that a command writes lies below this folder.
        cache: decoded images and duplicates, which all runs share; null keeps nothing.
    """

    data: Data
    augment: dict[str, Any]
    seed: int = 0
    sheet: Sheet = field(default_factory=Sheet)
    report: Report = field(default_factory=Report)
    fix: Fix = field(default_factory=Fix)
    weights: str = "auto"
    outputs: str = "outputs"
    cache: str | None = "${outputs}/cache"

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        _check_seeds(self.seed, **{"data.seed": self.data.seed})
        _check_outputs(self.outputs)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """``python -m cxrnet.shard``.

    Attributes:
        shards: where to write: a folder, or s3://<bucket>/<folder>.
        per_shard: images in a shard; 1,024 of 224 x 224 pixels are 51 MB.
        seed: seed of data options that draw.
        outputs: the cache lies below this folder.
        cache: folder for copies of shards on S3, which are read again in the end; null keeps nothing.
    """

    data: Data
    shards: str
    per_shard: int = 1024
    seed: int = 0
    outputs: str = "outputs"
    cache: str | None = "${outputs}/cache"

    def __post_init__(self) -> None:
        """Refuse what is out of range, and what shards don't hold."""
        need(bool(self.shards), "shards", "''", "a folder, or s3://<bucket>/<folder>")
        need(self.per_shard > 0, "per_shard", self.per_shard, "a whole number from 1 on")
        if self.data.limit is not None:
            raise CxrnetError("data.limit: shards hold all images; leave it out here, and give it when you train")
        if self.shards.startswith("s3://") and self.cache is None:
            raise CxrnetError("cache: null, but shards on S3 are read again from this disk; give cache=<folder>")
        _check_seeds(self.seed, **{"data.seed": self.data.seed})
        _check_outputs(self.outputs)


TESTED = ("roc_auc_macro", "roc_auc", "accuracy", "balanced_accuracy", "macro_f1", "pr_auc_macro", "brier")
SHOWN = (
    *("roc_auc_weighted", "log_loss", "ece", "kappa", "mcc", "sensitivity", "specificity", "precision", "npv"),
    *("f1", "roc_auc", "pr_auc"),
)


@dataclass(frozen=True)
class Compare:
    """``python -m cxrnet.compare``.

    Attributes:
        runs: run folders, MLflow run ids, or tables of predictions (.parquet, .csv) of any program.
        mlflow_experiment: the name of an experiment in MLflow: its finished runs.
        sweep: the folder of a sweep, or any other folder of run folders.
        metrics: metrics of the leaderboard that are tested. sensitivity_<class> is that of one class, sensitivity that
            of each. DeLong's test is of the ROC-AUC of a class; the bootstrap tests the mean over classes (macro).
        also: further metrics of the leaderboard, which are not tested.
        by: the metric by which the runs stand.
        resamples: how often the bootstrap draws the patients.
        seed: seed of the bootstrap.
        level: level of the confidence intervals.
        bins: number of bins of every ECE; that of a run's own report is the same number where
            evaluation.calibration.bins is.
        outputs: everything that a command writes lies below this folder.
    """

    runs: list[str] | None = None
    mlflow_experiment: str | None = None
    sweep: str | None = None
    metrics: list[str] = field(default_factory=lambda: [*TESTED])
    also: list[str] = field(default_factory=lambda: [*SHOWN])
    by: str = "${metrics[0]}"
    resamples: int = 2000
    seed: int = 0
    level: float = 0.95
    bins: int = 15
    tracking: Tracking = field(default_factory=Tracking)
    outputs: str = "outputs"

    def __post_init__(self) -> None:
        """Refuse what would be noticed late; the comparison refuses the rest."""
        need(bool(self.metrics), "metrics", self.metrics, "one at least, as [accuracy,brier]")
        need(self.bins > 0, "bins", self.bins, "a whole number from 1 on")
        need(self.resamples > 0, "resamples", self.resamples, "100 or more: the paired tests need the bootstrap")
        _check_seeds(self.seed)
        _check_outputs(self.outputs)


@dataclass(frozen=True, kw_only=True)
class Predict(Predicting):
    """``python -m cxrnet.predict``.

    Attributes:
        bundle: the folder of a bundle or of a run, the id of an MLflow run, or models:/<name>@<alias>.
        input: an image, a folder of images, a pattern as "images/**/*.png", or a zip archive.
        output: a .csv, .parquet, .json or .jsonl file for the predictions; null prints them only.
        format: table, csv, or json (an object a line): how they are printed; parquet needs output.
        labels: auto takes labels from the names of folders and files, where these name classes of the bundle; none; or
            a .csv file with the columns image and label. Where labels are known, metrics follow the predictions.
        gate: true turns images away that don't look like those of the training, and gives them no class; false predicts
            all.
        on_error: skip predicts the other images, lists the unreadable ones and exits with 1; fail ends in an error.
        outputs: the folder of all runs, whose MLflow is asked for runs and models.
    """

    bundle: str
    input: str
    output: str | None = None
    format: Literal["table", "csv", "json", "parquet"] = "table"
    labels: str = "auto"
    gate: bool = True
    on_error: OnError = "skip"
    outputs: str = "outputs"

    def __post_init__(self) -> None:
        """Refuse an empty name."""
        super().__post_init__()
        _check_outputs(self.outputs)


@dataclass(frozen=True, kw_only=True)
class Audit(Running):
    """``python -m cxrnet.audit``.

    Attributes:
        bundle: the folder of a bundle or of a run, the id of an MLflow run, or models:/<name>@<alias>.
        data: data set to audit on; null takes the run's own images: its test images for the model, and all of them for
            the probes where the run left the backbone as it was.
        classes: by the option of data, the class of the bundle by the data set's own label; null leaves its images
            out. classes.covid_chestxray={covid: COVID, non_covid: null}.
        lungs: auto (masks where there are any, else a box in the middle), masks or box.
        limit: number of images, drawn at random, that are looked at, test images first; null takes all.
        maps: number of test images that Grad-CAM is measured on; 0 leaves attribution out.
        occluded: number of them that occlusion is measured on, which takes some 200 times as long.
        pictures: number of images of each class on the page; 0 leaves all images out.
        resamples: resamples of the bootstrap.
        level: level of the confidence intervals, and of the findings of all looks together.
        seed: seed of the bootstrap, of the folds, of what is drawn, and of data options that draw.
        outputs: everything that a command writes lies below this folder.
        cache: decoded images and duplicates, which all runs share; null keeps nothing.
    """

    bundle: str
    data: Data | None = None
    classes: dict[str, Any] = field(default_factory=dict)
    lungs: LungSource = "auto"
    limit: int | None = 2000
    maps: int = 64
    occluded: int = 8
    pictures: int = 2
    resamples: int = 1000
    level: float = 0.95
    tracking: Tracking = field(default_factory=Tracking)
    seed: int = 0
    outputs: str = "outputs"
    cache: str | None = "${outputs}/cache"

    def __post_init__(self) -> None:
        """Refuse a number out of range."""
        super().__post_init__()
        need(self.limit is None or self.limit > 0, "limit", self.limit, "a whole number from 1 on, or null")
        for name in ("maps", "occluded", "pictures"):
            need(getattr(self, name) >= 0, name, getattr(self, name), "a whole number from 0 on")
        need(self.resamples >= LEAST, "resamples", self.resamples, f"a whole number from {LEAST} on")
        need(0 < self.level < 1, "level", self.level, "a number between 0 and 1, as 0.95")
        _check_seeds(self.seed)
        _check_outputs(self.outputs)


@dataclass(frozen=True, kw_only=True)
class Explain(Predicting):
    """``python -m cxrnet.explain``.

    Attributes:
        bundle: the folder of a bundle or of a run, the id of an MLflow run, or models:/<name>@<alias>.
        input: an image, a folder of images, a pattern as "images/**/*.png", or a zip archive.
        label: the class that is explained; null takes the predicted one of each image.
        method: grad_cam, or occlusion, which takes some 200 times as long.
        on_error: fail or skip: what an unreadable image does.
        seed: seed of the random networks that a map is checked against.
        outputs: everything that a command writes lies below this folder.
    """

    bundle: str
    input: str
    label: str | None = None
    method: Literal["grad_cam", "occlusion"] = "grad_cam"
    on_error: OnError = "fail"
    seed: int = 0
    outputs: str = "outputs"

    def __post_init__(self) -> None:
        """Refuse a number out of range."""
        super().__post_init__()
        _check_seeds(self.seed)
        _check_outputs(self.outputs)


@dataclass(frozen=True, kw_only=True)
class Export:
    """``python -m cxrnet.export``.

    Attributes:
        bundle: the folder of a bundle or of a run, the id of an MLflow run, or models:/<name>@<alias>.
        format: onnx, onnx_int8 (weights and activations of eight bits), torch_export, or huggingface (a folder to push
            to the hub); null only registers.
        output: folder that gets it; null takes exported/<format>.
        images: images that it is checked on, as predict's input; null takes images of the run, test images first.
        count: number of them.
        register: name in MLflow's registry that the model of the run is put under; null registers nothing.
        alias: alias that this version gets there.
        outputs: the folder of all runs, whose MLflow is asked for runs and models.
    """

    bundle: str
    format: Literal["onnx", "onnx_int8", "torch_export", "huggingface"] | None = None
    output: str | None = None
    images: str | None = None
    count: int = 100
    register: str | None = None
    alias: str = "candidate"
    outputs: str = "outputs"

    def __post_init__(self) -> None:
        """Refuse a number out of range."""
        need(self.count > 0, "count", self.count, "a whole number from 1 on")
        _check_outputs(self.outputs)


@dataclass(frozen=True, kw_only=True)
class Serve(Running):
    """``python -m cxrnet.serve``.

    Attributes:
        bundle: the folder of a bundle or of a run, the id of an MLflow run, or models:/<name>@<alias>.
        host: address that it listens at. Others than this machine's own reach every other one than 127.0.0.1; then each
            request must bring the token.
        port: port that it listens at; 0 takes a free one.
        hosts: names by which it may be called besides this machine's own; where others reach it, none allows all.
        token: that each request must bring, as Authorization: Bearer <token>; null takes CXRNET_TOKEN, else makes one
            up where others reach it.
        max_mb: megabytes of a request.
        max_files: files of a request.
        max_megapixels: of an image.
        room: files of all requests that may wait; more are answered with 429.
        timeout: seconds that a request may take to arrive, and to be read.
        outputs: the folder of all runs, whose MLflow is asked for runs and models.
    """

    bundle: str
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: list[str] = field(default_factory=list)
    token: str | None = None
    max_mb: float = 64
    max_files: int = 64
    max_megapixels: float = 40
    room: int = 128
    timeout: float = 60
    outputs: str = "outputs"

    def __post_init__(self) -> None:
        """Refuse a number out of range."""
        super().__post_init__()
        need(bool(self.host), "host", "''", "an address, as 127.0.0.1")
        need(0 <= self.port < 2**16, "port", self.port, "a whole number from 0 to 65535")
        need(0 < self.max_mb <= 2000, "max_mb", self.max_mb, "a number above 0, at most 2000")
        need(0 < self.max_megapixels <= 89, "max_megapixels", self.max_megapixels, "a number above 0, at most 89")
        for name in ("max_files", "room"):
            need(getattr(self, name) > 0, name, getattr(self, name), "a whole number from 1 on")
        need(0 < self.timeout <= 3600, "timeout", self.timeout, "seconds, above 0 and at most 3600")
        _check_outputs(self.outputs)


@dataclass(frozen=True)
class Sign:
    """``python -m cxrnet.sign``.

    Attributes:
        bundle: the folder of a bundle.
    """

    bundle: str


@dataclass(frozen=True)
class Sync:
    """``python -m cxrnet.sync``.

    Attributes:
        folders: runs, sweeps, or any folders that hold some; null takes all below outputs.
        outputs: where the runs lie.
    """

    folders: list[str] | None = None
    outputs: str = "outputs"

    def __post_init__(self) -> None:
        """Refuse an empty name."""
        _check_outputs(self.outputs)


def _check_seeds(seed: int, **others: int) -> None:
    """Refuse seeds that numpy or torch can't take; first the one that the others follow from."""
    for key, value in {"seed": seed, **others}.items():
        need(0 <= value < 2**31, key, value, "a whole number from 0 to 2147483647")


def _check_outputs(folder: str) -> None:
    need(bool(folder), "outputs", "''", "a folder")


COMMANDS = (Train, Evaluate, Prepare, Shard, Compare, Predict, Audit, Explain, Export, Serve, Sign, Sync)
