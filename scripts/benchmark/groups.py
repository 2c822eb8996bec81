"""The groups: which contenders do what, which of their numbers are compared, and the targets."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from images import drawn_images, own_images
from jobs import Job
from omegaconf import DictConfig, OmegaConf
from options import PRECISIONS
from results import Group, Ratio, difference, quotient, repaid_after

from cxrnet.data.duplicates.search import SEARCH_SIZE
from cxrnet.data.images.files import find_images


@dataclass(frozen=True)
class Plan:
    """Facts that all groups share.

    Attributes:
        options: checked.
        device: ``cpu`` or ``cuda``.
        drawn: folder of drawn images, kept for later benchmarks.
        scratch: folder for what jobs leave, emptied after each group.
        weights: those of the group frozen; ``none`` where the wanted ones can't be had.
    """

    options: DictConfig
    device: str
    drawn: Path
    scratch: Path
    weights: str = "none"

    def task(self, backbone: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 (values of a Task)
        """Return the settings of a :class:`shared.Task`."""
        options = self.options
        common = {"size": list(options.size), "batch_size": options.batch_size, "device": self.device}
        return {"backbone": backbone, **common, "seed": options.seed, **more}

    def images(self, count: int) -> Path:
        """Return a folder of drawn images."""
        return drawn_images(self.drawn, count, self.options.file_size, self.options.seed)

    def users_images(self) -> Path | None:
        """Return the user's own images, linked; ``None`` without any."""
        root = self.options.data.root
        return None if root is None else own_images(root, self.scratch / "own images", self.options.seed)

    def cxrnet(self, cache: str, views: int = 1, features_gb: float = 10, compiled: bool = False) -> dict[str, Any]:
        """Return the settings that cxrnet's training has beside its task."""
        words = OmegaConf.to_object(self.options.overrides)
        own = {"cache": str(self.scratch / cache), "views": views, "features_gb": features_gb, "compiled": compiled}
        return {**own, "overrides": words, "fresh": True}


def _times(
    own: str, rival: str, number: str = "images_per_second", least: float | None = None, most: float | None = None
) -> Ratio:
    what = {"seconds": "time: ", "memory_mb": "memory: "}.get(number, "")
    return Ratio(f"{what}{own} / {rival}", ((own, number), (rival, number)), quotient, least, most)


def _keras_job(plan: Plan, name: str, task: dict[str, Any]) -> Job:
    weights = plan.options.keras_weights
    python = str(plan.options.keras_python or sys.executable)
    return Job(name, "keras_recipe:train", {"task": {**task, "weights": weights}}, python=python)


def frozen(plan: Plan) -> Group:
    """Fit a head on a frozen backbone, from image files, with and without augmentation, cold and warm cache.

    Target: ten times faster than the Keras recipe and the plain loop, at equal or better accuracy.
    """
    options, settings = plan.options, plan.options.frozen
    root = plan.users_images() or plan.images(options.images)
    # An accuracy on random weights tells nothing; timm's parts have no others.
    weights = {"plain loop": plan.weights, "Keras recipe": options.keras_weights or "none"}
    jobs: list[Job] = []
    ratios: list[Ratio] = []
    for augment in (False, True):
        more = ", augmented" if augment else ""
        task = plan.task(
            options.model.backbone, root=str(root), weights=plan.weights, trainable="head", augment=augment,
            epochs=settings.epochs, steps=None, lr=settings.lr,
        )  # fmt: skip
        jobs += [
            Job(f"plain loop{more}", "torch_jobs:plain", task),
            _keras_job(plan, f"Keras recipe{more}", task),
            Job(f"timm's parts{more}", "timm_jobs:train", task, needs=("timm",)),
            Job(f"cxrnet on images{more}", "cxrnet_jobs:train", {**task, **plan.cxrnet(f"images{more}", views=0)}),
        ]
        for views in settings.views if augment else [1]:
            name = f"cxrnet, {views} view{'s' * (views > 1)}" if augment else "cxrnet"
            own = {**task, **plan.cxrnet(name, views)}
            warm = f"{name}, warm cache"
            jobs += [Job(name, "cxrnet_jobs:train", own), Job(warm, "cxrnet_jobs:train", {**own, "fresh": False})]
            for rival in ("plain loop", "Keras recipe", "timm's parts"):
                least = None if rival == "timm's parts" else 10.0
                ratios += [
                    _times(f"{rival}{more}", it, "seconds", least if it == name else None) for it in (name, warm)
                ]
            ratios += [
                Ratio(
                    f"accuracy: {name} − {rival}{more}",
                    ((name, "val_accuracy"), (f"{rival}{more}", "val_accuracy")), difference, least=0.0,
                )
                for rival, its in weights.items() if "none" not in (its, plan.weights)
            ]  # fmt: skip
    return Group("A head on a frozen backbone", ("seconds", "val_accuracy", "memory_mb"), jobs, ratios)


def train(plan: Plan) -> Group:
    """Train all layers, and the last ones, in every precision, beside the plain loop and against the ceiling."""
    root = plan.images(plan.options.train.steps * plan.options.batch_size)
    jobs: list[Job] = []
    ratios: list[Ratio] = []
    for backbone in plan.options.models:
        for precision in plan.options.precisions:
            jobs += _training_jobs(plan, str(root), backbone, PRECISIONS[precision])
            ratios += _training_ratios(plan, backbone, PRECISIONS[precision])
    numbers = ("images_per_second", "warm_up_seconds", "memory_mb")
    return Group("Training", numbers if plan.device == "cpu" else (*numbers, "device_memory_mb"), jobs, ratios)


def _training_jobs(plan: Plan, root: str, backbone: str, precision: str) -> list[Job]:
    options, bf16 = plan.options, precision == "bf16"
    last = {"last": options.train.last}
    # timm's script has bf16 and channels last together.
    task = plan.task(backbone, root=root, steps=options.train.steps, lr=options.train.lr, bf16=bf16, channels_last=bf16)
    nchw, channels_last = {**task, "channels_last": False}, {**task, "channels_last": True}
    script = options.timm_benchmark
    no_script = None if script else "timm's package doesn't hold it; give timm_benchmark=<the file>"

    def job(name: str, function: str, settings: dict[str, Any], **more: Any) -> Job:  # noqa: ANN401 (those of a Job)
        return Job(f"{backbone}, {precision}: {name}", function, settings, **more)

    def own(name: str, trainable: object, features_gb: float = 0, compiled: bool = False) -> Job:
        more = plan.cxrnet(f"{backbone}-{precision}-{name}", features_gb=features_gb, compiled=compiled)
        return job(name, "cxrnet_jobs:train", {**task, "trainable": trainable, **more})

    jobs = [
        job("plain loop", "torch_jobs:plain", nchw),
        job("plain loop, channels last, last layers", "torch_jobs:plain", {**channels_last, "trainable": last}),
        job("timm's parts", "timm_jobs:train", task, needs=("timm",)),
        *([] if bf16 else [_keras_job(plan, f"{backbone}, {precision}: Keras recipe", task)]),
        job("ceiling", "torch_jobs:ceiling", nchw),
        job("ceiling, channels last", "torch_jobs:ceiling", channels_last),
        job("timm's step", "timm_jobs:step", channels_last, needs=("timm",)),
        job(
            "timm's benchmark.py", "timm_jobs:script", {**channels_last, "file": str(Path(script or "").resolve())},
            needs=("timm",), missing=no_script,
        ),
        own("cxrnet", "all"),
        own("cxrnet, last layers", last),
        own("cxrnet, last layers, features stored", last, features_gb=10),
    ]  # fmt: skip
    if options.compile:
        ceiling = job("ceiling, channels last, compiled", "torch_jobs:ceiling", {**channels_last, "compiled": True})
        jobs += [ceiling, own("cxrnet, compiled", "all", compiled=True)]
    if _arithmetic(plan, precision):
        name = "ceiling, channels last, bf16 arithmetic"
        jobs.append(job(name, "torch_jobs:ceiling_in_bf16_arithmetic", channels_last))
    return jobs


def _arithmetic(plan: Plan, precision: str) -> bool:
    return bool(plan.options.arithmetic) and precision == "fp32" and plan.device == "cpu"


def _training_ratios(plan: Plan, backbone: str, precision: str) -> list[Ratio]:
    on_cpu = plan.device == "cpu"

    def named(contender: str, its_precision: str = precision) -> str:
        return f"{backbone}, {its_precision}: {contender}"

    def against(own: str, rival: str, rivals_precision: str = precision, least: float | None = None) -> Ratio:
        operands = ((named(own), "images_per_second"), (named(rival, rivals_precision), "images_per_second"))
        shown = rival if rivals_precision == precision else named(rival, rivals_precision)
        return Ratio(f"{named(own)} / {shown}", operands, quotient, least)

    times_plain = {("resnet50", "fp32"): 1.4, ("resnet50", "bf16"): 3.0}.get((backbone, precision)) if on_cpu else None
    # timm's VGG has two wide layers more before its classifier.
    times_timm = None if on_cpu or precision == "fp32" or backbone.startswith("vgg") else 1.0
    ceiling = "ceiling, channels last"
    ratios = [
        against("cxrnet", ceiling, least=0.95),
        against("cxrnet", "plain loop", "fp32", least=times_plain),
        against("cxrnet", "timm's parts"),
        against("cxrnet", "Keras recipe", "fp32"),
        against("cxrnet, last layers", "plain loop, channels last, last layers", least=1.5),
        # The table of features is made once in a phase, before what is timed here.
        against("cxrnet, last layers, features stored", "plain loop, channels last, last layers"),
        against(ceiling, "timm's step", least=times_timm),
        against(ceiling, "timm's benchmark.py", least=times_timm),
    ]
    for plain in ("cxrnet", ceiling) if plan.options.compile else ():
        compiled = f"{plain}, compiled"
        starts = tuple((named(name), "warm_up_seconds") for name in (compiled, plain))
        rates = tuple((named(name), "images_per_second") for name in (plain, compiled))
        ratios += [
            against(compiled, plain),
            Ratio(f"{named(compiled)}: compiling takes", starts, difference, unit="s"),
            Ratio(f"{named(compiled)}: has paid after", (*starts[::-1], *rates), repaid_after, unit="images"),
        ]
    if _arithmetic(plan, precision):
        name = f"{ceiling}, bf16 arithmetic"
        moved = Ratio(f"{named(name)}: logits move by (relative L2)", ((named(name), "logits_moved"),))
        ratios += [against(name, ceiling), moved]
    return ratios


def data(plan: Plan) -> Group:
    """Set a data set up for the first time against the decoder's own rate, and wait for batches in later epochs.

    The decoder with both sizes also resizes for the search for duplicates, which no set-up can do without; the one
    that doesn't resize can't be reached.
    """
    options = plan.options
    root = plan.users_images() or plan.images(options.predict.images)
    # So many epochs that the later ones have the steps that are asked for; a small set has few in each.
    steps = min(options.data.steps, ceil(len(find_images(root / "train").images) / options.batch_size))
    epochs = 1 + ceil(options.data.steps / steps)
    task = plan.task(options.model.backbone, root=str(root), epochs=epochs, steps=steps, lr=options.train.lr)
    cold = {**task, **plan.cxrnet("data")}
    warm = {**cold, "fresh": False}
    size = list(options.size)
    decoders = {
        "decoder": [size], "decoder, both sizes": [size, list(SEARCH_SIZE)], "decoder, not resized": []
    }  # fmt: skip
    jobs = [
        *(Job(name, "data_jobs:decode", {"root": str(root), "sizes": sizes}) for name, sizes in decoders.items()),
        Job("cxrnet, first set-up", "cxrnet_jobs:setup", cold),
        Job("cxrnet, second set-up", "cxrnet_jobs:setup", warm),
        Job("cxrnet, epochs", "cxrnet_jobs:train", warm),
    ]
    waiting = (("cxrnet, epochs", "waiting_share"),)
    ratios = [
        _times("cxrnet, first set-up", "decoder", least=0.9),
        _times("cxrnet, first set-up", "decoder, both sizes"),
        _times("cxrnet, first set-up", "decoder, not resized"),
        _times("cxrnet, second set-up", "decoder"),
        Ratio("share of later epochs spent waiting", waiting, most=0.03),
    ]
    return Group("Data path", ("images_per_second", "waiting_share", "memory_mb"), jobs, ratios)


def predict(plan: Plan) -> Group:
    """Predict a folder, from files to a file, against forward passes in memory; in fp32, as evaluation is.

    The ceilings are short and come right before: a machine's pace changes within minutes.
    """
    options, bundle = plan.options, str(plan.scratch / "bundle")
    task = plan.task(options.model.backbone, steps=options.predict.steps)
    roots = {
        "cxrnet": plan.images(options.predict.images),
        "cxrnet, a tenth of the images": plan.images(max(8, options.predict.images // 10)),
    }
    own = {
        "bundle": bundle, "output": str(plan.scratch / "predictions.csv"), "batch_size": options.batch_size,
        "device": plan.device,
    }  # fmt: skip
    ceiling, fused = "ceiling, channels last", "ceiling, channels last, fused"
    plain = "plain loop, a tenth of the images"
    tenth = {**task, "root": str(roots["cxrnet, a tenth of the images"])}
    jobs = [
        Job(plain, "torch_jobs:plain_predict", tenth),
        Job("ceiling", "torch_jobs:ceiling_predict", {**task, "fused": False}),
        Job(ceiling, "torch_jobs:ceiling_predict", {**task, "channels_last": True, "fused": False}),
        Job(fused, "torch_jobs:ceiling_predict", {**task, "channels_last": True, "fused": True}),
        *(Job(name, "cxrnet_jobs:predict", {**own, "images": str(root / "train")}) for name, root in roots.items()),
    ]
    ratios = [
        _times("cxrnet", ceiling, least=0.9),
        _times("cxrnet", fused, least=0.9),
        _times("cxrnet", plain),
        _times("cxrnet", "cxrnet, a tenth of the images", "memory_mb", most=1.1),
    ]
    before = [Job("bundle", "cxrnet_jobs:write_bundle", {**task, "folder": bundle})]
    return Group("Prediction", ("images_per_second", "memory_mb"), jobs, ratios, before)


def startup(plan: Plan) -> Group:
    """Time commands until they end, and a training until its first batch."""
    options = plan.options
    words = [
        "data=folder", f"data.root='{plan.images(2 * options.batch_size)}'", f"data.size={list(options.size)}",
        f"data.batch_size={options.batch_size}", "model=custom_cnn", "schedule=full", "augment=light",
        f"trainer={'gpu' if plan.device == 'cuda' else 'cpu'}",
    ]  # fmt: skip
    libraries, batch = "import torch, lightning, mlflow", "train, to the first batch"

    def command(name: str, *line: str, fails: bool = False) -> Job:
        return Job(name, "data_jobs:command", {"line": list(line), "fails": fails})

    jobs = [
        command("python", "-c", "pass"),
        command("import cxrnet", "-c", "import cxrnet"),
        command("train --help", "-m", "cxrnet.train", "--help"),
        command("train with a mistake", "-m", "cxrnet.train", "model=none_of_these", fails=True),
        command("train with a wrong value", "-m", "cxrnet.train", "data.batch_size=0", fails=True),
        command(libraries, "-c", "import torch, lightning.pytorch, mlflow"),
        Job(batch, "data_jobs:first_batch", {"overrides": words}),
    ]

    def longer(name: str, base: str, most: float) -> Ratio:
        return Ratio(f"{name} − {base}", ((name, "seconds"), (base, "seconds")), difference, most=most, unit="s")

    ratios = [
        longer("import cxrnet", "python", 0.1),
        *(Ratio(job.name, ((job.name, "seconds"),), most=1.5, unit="s") for job in jobs[2:5]),
        longer(batch, libraries, 1.5),
    ]
    return Group("Start-up", ("seconds",), jobs, ratios)


def growth(plan: Plan) -> Group:
    """Open and split a manifest of many rows, and set data sets of several sizes up for the first time."""
    options, settings = plan.options, plan.options.growth
    counts, file = sorted(settings.images), str(plan.scratch / "manifest.parquet")
    task = {
        "root": str(plan.images(counts[-1]) / "train"), "size": list(options.size), "batch_size": options.batch_size,
        "seed": options.seed, "scratch": str(plan.scratch),
    }  # fmt: skip
    jobs = [
        Job("manifest", "data_jobs:manifest", {"file": file, "seed": options.seed}),
        *(Job(f"set-up of {n:,} images", "data_jobs:setup", {**task, "images": n}) for n in counts),
    ]
    rows = f"{settings.rows:,} rows"
    ends = ((jobs[-1].name, "ms_per_image"), (jobs[1].name, "ms_per_image"))
    ratios = [
        Ratio(f"{rows}: open", (("manifest", "open_seconds"),), most=3.0, unit="s"),
        Ratio(f"{rows}: split", (("manifest", "split_seconds"),), most=30.0, unit="s"),
        Ratio(f"{rows}: memory", (("manifest", "memory_mb"),), most=1000.0, unit="MB"),
        Ratio(f"time per image: {counts[-1]:,} images / {counts[0]:,}", ends, quotient, most=1.2),
    ]
    before = [Job("rows", "data_jobs:write_rows", {"file": file, "rows": settings.rows, "seed": options.seed})]
    numbers = ("ms_per_image", "seconds", "open_seconds", "split_seconds", "memory_mb")
    return Group("Growth", numbers, jobs, ratios, before, rounds=1)


GROUPS: dict[str, Callable[[Plan], Group]] = {
    "frozen": frozen,
    "train": train,
    "data": data,
    "predict": predict,
    "startup": startup,
    "growth": growth,
}
