"""What all groups are told: sizes, device, folders; and what a group is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrnet.benchmarking.jobs import Job
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.ratios import Ratio
from cxrnet.core.config import Config
from cxrnet.errors import CxrnetError


@dataclass(frozen=True)
class Plan:
    """The configuration of a benchmark, checked.

    Attributes:
        config: plain, of ``conf/benchmark.yaml``.
        device: ``cpu`` or ``cuda``.
        drawn: folder of drawn images, kept for later benchmarks.
        scratch: folder for what the jobs leave, removed in the end.
        weights: of the group frozen, as ``model.weights`` has it; ``none`` where the wanted ones can't be had.
    """

    config: Config
    device: str
    drawn: Path
    scratch: Path
    weights: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in the network."""
        height, width = self.config["size"]
        return height, width

    @property
    def batch_size(self) -> int:
        """Images a step."""
        return int(self.config["batch_size"])

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return int(self.config["seed"])

    @property
    def backbone(self) -> str:
        """Of the groups that measure one."""
        return str(self.config["model"]["backbone"])

    @property
    def trainer(self) -> str:
        """The option of that name."""
        return "cpu" if self.device == "cpu" else "gpu" if self.device == "cuda" else "auto"

    def shared(self, backbone: str) -> dict[str, Any]:
        """Arguments that every contender of torch and Keras takes."""
        return {"backbone": backbone, "size": list(self.size), "batch_size": self.batch_size, "device": self.device}


@dataclass(frozen=True)
class Group:
    """What is measured together.

    Attributes:
        title: heading.
        numbers: of a job that are shown, see :data:`NUMBERS`; the figure shows the first.
        jobs: that are measured, in the order of each round.
        ratios: what is made of the numbers of a round.
        before: jobs that are done once before, and not measured.
        repeats: rounds; ``None`` takes those of the configuration.
    """

    title: str
    numbers: Sequence[str]
    jobs: Sequence[Job]
    ratios: Callable[[Table], list[Ratio]]
    before: Sequence[Job] = ()
    repeats: int | None = None


# What the numbers of a job are called where people read them.
NUMBERS = {
    "seconds": "seconds",
    "images_per_second": "images/s",
    "val_accuracy": "val accuracy",
    "waiting_share": "waiting",
    "warm_up_seconds": "warm-up, s",
    "memory_mb": "memory, MB",
    "device_memory_mb": "device memory, MB",
    "ms_per_image": "ms/image",
    "open_seconds": "open, s",
    "split_seconds": "split, s",
}


# Networks that cxrnet, torchvision, Keras and timm all have.
BACKBONES = ("mobilenet_v2", "resnet50", "vgg16", "vgg19")
PRECISIONS = {"32-true": "fp32", "bf16-mixed": "bf16"}


def check_plan(config: Config, groups: Sequence[str]) -> list[str]:
    """Refuse what would be noticed late; return the groups that are asked for.

    Args:
        config: plain.
        groups: that there are.

    Raises:
        CxrnetError: an unknown group, network or precision, a number that is none, or a file that isn't there.
    """
    only = config["only"]
    asked: list[str] = list(groups) if only is None else [only] if isinstance(only, str) else only
    if unknown := [name for name in asked if name not in groups]:
        raise CxrnetError(f"only: '{unknown[0]}' is no group; give some of {', '.join(groups)}")
    if not asked or len(set(asked)) < len(asked):
        raise CxrnetError(f"only: {asked}; give each group once, or null for all")
    for name, given, known in (
        ("model.backbone", [config["model"]["backbone"]], BACKBONES),
        ("models", config["models"], BACKBONES),
        ("precisions", config["precisions"], tuple(PRECISIONS)),
    ):
        if not isinstance(given, list) or not given:
            raise CxrnetError(f"{name}: '{given}' is no list; give {name}=[{known[0]}], for example")
        if unknown := [value for value in given if value not in known]:
            raise CxrnetError(f"{name}: '{unknown[0]}' is none of {', '.join(known)}")
    if not isinstance(config["size"], list) or len(config["size"]) != 2:
        raise CxrnetError(f"size: {config['size']} is not a size; give height and width in pixels, as [224, 224]")
    _check_counts(config)
    for name, what in (("timm_benchmark", "timm's benchmark.py"), ("keras_python", "a Python that has TensorFlow")):
        file = config[name]
        if file is not None and not Path(str(file)).is_file():
            raise CxrnetError(f"{name}: there is no file '{file}'; give {what}, or null")
    return asked


def _check_counts(config: Config) -> None:
    """Whole numbers, and lists of different ones."""
    counts = {name: config[name] for name in ("repeats", "batch_size", "images", "file_size")}
    counts |= {f"{group}.steps": config[group]["steps"] for group in ("train", "data", "predict")}
    counts |= {"frozen.epochs": config["frozen"]["epochs"], "train.last": config["train"]["last"]}
    counts |= {"predict.images": config["predict"]["images"], "growth.rows": config["growth"]["rows"]}
    counts |= {f"size[{place}]": side for place, side in enumerate(config["size"])}
    for name, numbers in (("frozen.views", config["frozen"]["views"]), ("growth.images", config["growth"]["images"])):
        if not isinstance(numbers, list) or not numbers or len(set(numbers)) < len(numbers):
            raise CxrnetError(f"{name}: {numbers} is no list of different numbers; give {name}=[1,2], for example")
        counts |= {f"{name}[{place}]": number for place, number in enumerate(numbers)}
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise CxrnetError(f"{name}: {count}; give a whole number from 1 on")
    if not isinstance(config["seed"], int) or config["seed"] < 0:
        raise CxrnetError(f"seed: {config['seed']}; give a whole number from 0 on")
