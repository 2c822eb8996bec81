"""The groups: which contenders do what, which of their numbers are compared, and the targets."""

import operator
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from images import drawn_images, own_images
from jobs import Job
from omegaconf import DictConfig, OmegaConf
from options import PRECISIONS
from results import Group, Ratio, quotient, repaid_after

from cxrnet.data.duplicates import SEARCH_SIZE
from cxrnet.data.images.files import find_images
from cxrnet.errors import CxrnetError

Settings = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Facts that all groups share."""

    options: DictConfig  # checked
    device: str  # cpu | cuda
    drawn: Path  # folder of drawn images, kept for later benchmarks
    scratch: Path  # folder for what jobs leave, emptied after each group
    weights: str = "none"  # of the group frozen; none where the wanted ones can't be had

    def task(self, backbone: str, **more: Any) -> Settings:  # noqa: ANN401 (values of a Task)
        """Return the settings of a :class:`shared.Task`."""
        options = self.options
        common = {"size": list(options.size), "batch_size": options.batch_size, "device": self.device}
        return {"backbone": backbone, **common, "seed": options.seed, **more}

    def images(self, count: int) -> Path:
        """Return a folder of drawn images."""
        return drawn_images(self.drawn, count, self.options.file_size, self.options.seed)

    def own_or_drawn(self, count: int) -> Path:
        """Return the user's images, linked; without any, a folder of so many drawn ones."""
        root, options = self.options.data.root, self.options
        return self.images(count) if root is None else own_images(root, self.scratch / "own images", options.seed)

    def cxrnet(self, cache: str, views: int = 1, features_gb: float = 10, compiled: bool = False) -> Settings:
        """Return the settings that cxrnet's training has beside its task."""
        words = OmegaConf.to_object(self.options.overrides)
        own = {"cache": str(self.scratch / cache), "views": views, "features_gb": features_gb, "compiled": compiled}
        return {**own, "overrides": words, "fresh": True}

    def tasks_with_overrides(self) -> list[Settings]:
        """Return one training of each kind of the chosen groups, to check the user's further words on."""
        only, backbone = set(self.options.only), self.options.model.backbone
        kinds: list[tuple[bool, int | None]] = [(False, None), (True, None)] if "frozen" in only else []
        kinds += [(True, 1)] if only & {"train", "data", "growth"} else []
        return [
            {**self.task(backbone, augment=augment, steps=steps), **self.cxrnet("unused")} for augment, steps in kinds
        ]

    def keras(self, name: str, task: Settings) -> Job:
        """Return a job of the Keras recipe, which has weights and a Python of its own."""
        settings = {"task": {**task, "weights": self.options.keras_weights}}
        return Job(name, "keras_recipe:train", settings, python=str(self.options.keras_python or sys.executable))


def _times(
    own: str, rival: str, number: str = "images_per_second", least: float | None = None, most: float | None = None
) -> Ratio:
    """Divide a number of one job by that of another; what both names begin with is written once."""
    what = {"seconds": "time: ", "memory_mb": "memory: "}.get(number, "")
    shown = rival.removeprefix(f"{own.partition(': ')[0]}: ")
    return Ratio(f"{what}{own} / {shown}", ((own, number), (rival, number)), quotient, least, most)


def frozen(plan: Plan) -> Group:
    """Fit a head on a frozen backbone, from image files, with and without augmentation, cold and warm cache.

    Target: ten times faster than the Keras recipe and the plain loop, at equal or better accuracy.
    """
    options, settings = plan.options, plan.options.frozen
    root = str(plan.own_or_drawn(options.images))
    jobs: list[Job] = []
    ratios: list[Ratio] = []
    for augment in (False, True):
        more = ", augmented" if augment else ""
        task = plan.task(
            options.model.backbone, root=root, weights=plan.weights, trainable="head", augment=augment,
            epochs=settings.epochs, steps=None, lr=settings.lr,
        )  # fmt: skip
        plain, keras, timm = (f"{rival}{more}" for rival in ("plain loop", "Keras recipe", "timm's parts"))
        jobs += [
            Job(plain, "torch_jobs:plain", task),
            plan.keras(keras, task),
            Job(timm, "timm_jobs:train", task),
            Job(f"cxrnet on images{more}", "cxrnet_jobs:train", {**task, **plan.cxrnet(f"images{more}", views=0)}),
        ]
        # An accuracy on random weights tells nothing; timm's parts have no others.
        weighted = {plain: plan.weights, keras: options.keras_weights or "none"}
        for views in settings.views if augment else [1]:
            name = f"cxrnet, {views} view{'s' * (views > 1)}" if augment else "cxrnet"
            own, warm = {**task, **plan.cxrnet(name, views)}, f"{name}, warm cache"
            jobs += [Job(name, "cxrnet_jobs:train", own), Job(warm, "cxrnet_jobs:train", {**own, "fresh": False})]
            for rival in (plain, keras, timm):
                ratios += [_times(rival, name, "seconds", None if rival == timm else 10.0)]
                ratios += [_times(rival, warm, "seconds")]
            for rival in [rival for rival, its in weighted.items() if "none" not in (its, plan.weights)]:
                accuracies = ((name, "val_accuracy"), (rival, "val_accuracy"))
                ratios.append(Ratio(f"accuracy: {name} − {rival}", accuracies, operator.sub, least=0.0))
    return Group("A head on a frozen backbone", ("seconds", "val_accuracy", "memory_mb"), jobs, ratios)


def train(plan: Plan) -> Group:
    """Train all layers, and the last ones, in every precision, beside the plain loop and against the ceiling."""
    root = str(plan.images(plan.options.train.steps * plan.options.batch_size))
    jobs: list[Job] = []
    ratios: list[Ratio] = []
    for backbone in plan.options.models:
        for precision in plan.options.precisions:
            more_jobs, more_ratios = _training(plan, root, backbone, PRECISIONS[precision])
            jobs, ratios = jobs + more_jobs, ratios + more_ratios
    jobs, ratios = _chosen(plan.options.train.contenders, jobs, ratios)
    numbers = ("images_per_second", "warm_up_seconds", "memory_mb")
    return Group("Training", numbers if plan.device == "cpu" else (*numbers, "device_memory_mb"), jobs, ratios)


def _chosen(
    contenders: str | Sequence[str] | None, jobs: list[Job], ratios: list[Ratio]
) -> tuple[list[Job], list[Ratio]]:
    """Leave the jobs of some contenders, and the ratios between them."""
    if contenders is None:
        return jobs, ratios
    asked = [contenders] if isinstance(contenders, str) else list(contenders)
    known = list(dict.fromkeys(job.name.partition(": ")[2] for job in jobs))
    if unknown := [name for name in asked if name not in known]:
        raise CxrnetError(f"train.contenders: {unknown[0]!r} is none of {'; '.join(known)}")
    jobs = [job for job in jobs if job.name.partition(": ")[2] in asked]
    names = {job.name for job in jobs}
    return jobs, [ratio for ratio in ratios if {job for job, _ in ratio.operands} <= names]


def _training(plan: Plan, root: str, backbone: str, precision: str) -> tuple[list[Job], list[Ratio]]:
    options, on_cpu, bf16 = plan.options, plan.device == "cpu", precision == "bf16"
    # timm's script has bf16 and channels last together.
    task = plan.task(backbone, root=root, steps=options.train.steps, lr=options.train.lr, bf16=bf16, channels_last=bf16)
    nchw, channels_last = {**task, "channels_last": False}, {**task, "channels_last": True}
    last = {"last": options.train.last}

    def named(contender: str, its: str = precision) -> str:
        return f"{backbone}, {its}: {contender}"

    def own(contender: str, trainable: object, features_gb: float = 0, compiled: bool = False) -> Job:
        more = plan.cxrnet(f"{backbone}-{precision}-{contender}", features_gb=features_gb, compiled=compiled)
        return Job(named(contender), "cxrnet_jobs:train", {**task, "trainable": trainable, **more})

    ceiling, partly = named("ceiling, channels last"), named("plain loop, channels last, last layers")
    step, script = named("timm's step"), named("timm's benchmark.py")
    file = options.timm_benchmark
    no_file = None if file else "timm's package doesn't hold it; give timm_benchmark=<the file>"
    jobs = [
        Job(named("plain loop"), "torch_jobs:plain", nchw),
        Job(partly, "torch_jobs:plain", {**channels_last, "trainable": last}),
        Job(named("timm's parts"), "timm_jobs:train", task),
        *([] if bf16 else [plan.keras(named("Keras recipe"), task)]),
        Job(named("ceiling"), "torch_jobs:ceiling", nchw),
        Job(ceiling, "torch_jobs:ceiling", channels_last),
        Job(step, "timm_jobs:step", channels_last),
        Job(script, "timm_jobs:script", {**channels_last, "file": str(Path(file or "").resolve())}, missing=no_file),
        own("cxrnet", "all"),
        own("cxrnet, last layers", last),
        own("cxrnet, last layers, features stored", last, features_gb=10),
    ]
    times_plain = {("resnet50", "fp32"): 1.4, ("resnet50", "bf16"): 3.0}.get((backbone, precision)) if on_cpu else None
    # timm's VGG has two wide layers more before its classifier.
    times_timm = None if on_cpu or not bf16 or backbone.startswith("vgg") else 1.0
    ratios = [
        _times(named("cxrnet"), ceiling, least=0.95),
        _times(named("cxrnet"), named("plain loop", "fp32"), least=times_plain),
        _times(named("cxrnet"), named("timm's parts")),
        _times(named("cxrnet"), named("Keras recipe", "fp32")),
        _times(named("cxrnet, last layers"), partly, least=1.5),
        # The table of features is made once in a phase, before what is timed here.
        _times(named("cxrnet, last layers, features stored"), partly),
        _times(ceiling, step, least=times_timm),
        _times(ceiling, script, least=times_timm),
    ]
    if options.compile:
        jobs.append(Job(f"{ceiling}, compiled", "torch_jobs:ceiling", {**channels_last, "compiled": True}))
        jobs.append(own("cxrnet, compiled", "all", compiled=True))
        for slow in (named("cxrnet"), ceiling):
            fast = f"{slow}, compiled"
            starts, rates = (((slow, number), (fast, number)) for number in ("warm_up_seconds", "images_per_second"))
            ratios += [
                _times(fast, slow),
                Ratio(f"{fast}: compiling takes", starts[::-1], operator.sub, unit="s"),
                Ratio(f"{fast}: has paid after", (*starts, *rates), repaid_after, unit="images"),
            ]
    if options.arithmetic and on_cpu and not bf16:
        name = f"{ceiling}, bf16 arithmetic"
        jobs.append(Job(name, "torch_jobs:ceiling_in_bf16_arithmetic", channels_last))
        moved = Ratio(f"{name}: logits move by (relative L2)", ((name, "logits_moved"),))
        ratios += [_times(name, ceiling), moved]
    return jobs, ratios


def data(plan: Plan) -> Group:
    """Set a data set up for the first time against the decoder's own rate, and wait for batches in later epochs.

    The decoder with both sizes also resizes for the search for duplicates, which no set-up can do without; the one
    that doesn't resize can't be reached.
    """
    options = plan.options
    root = plan.own_or_drawn(options.predict.images)
    # So many epochs that the later ones have the steps that are asked for; a small set has few in each.
    steps = min(options.data.steps, ceil(len(find_images(root / "train").images) / options.batch_size))
    epochs = 1 + ceil(options.data.steps / steps)
    task = plan.task(options.model.backbone, root=str(root), epochs=epochs, steps=steps, lr=options.train.lr)
    cold = {**task, **plan.cxrnet("data")}
    warm = {**cold, "fresh": False}
    size, search = list(options.size), list(SEARCH_SIZE)
    decoders = {"decoder": [size], "decoder, both sizes": [size, search], "decoder, not resized": []}
    jobs = [
        *(Job(name, "data_jobs:decode", {"root": str(root), "sizes": sizes}) for name, sizes in decoders.items()),
        Job("cxrnet, first set-up", "cxrnet_jobs:setup", cold),
        Job("cxrnet, second set-up", "cxrnet_jobs:setup", warm),
        Job("cxrnet, epochs", "cxrnet_jobs:train", warm),
    ]
    ratios = [
        _times("cxrnet, first set-up", "decoder", least=0.9),
        _times("cxrnet, first set-up", "decoder, both sizes"),
        _times("cxrnet, first set-up", "decoder, not resized"),
        _times("cxrnet, second set-up", "decoder"),
        Ratio("share of later epochs spent waiting", (("cxrnet, epochs", "waiting_share"),), most=0.03),
    ]
    return Group("Data path", ("images_per_second", "waiting_share", "memory_mb"), jobs, ratios)


def predict(plan: Plan) -> Group:
    """Predict a folder, from files to a file, against forward passes in memory; in fp32, as evaluation is.

    The ceilings are short and come right before: a machine's pace changes within minutes.
    """
    options, bundle, output = plan.options, str(plan.scratch / "bundle"), str(plan.scratch / "predictions.csv")
    task = plan.task(options.model.backbone, steps=options.predict.steps)
    own = {"bundle": bundle, "output": output, "batch_size": options.batch_size, "device": plan.device}
    many, few = (plan.images(count) for count in (options.predict.images, max(8, options.predict.images // 10)))
    ceiling, fused = "ceiling, channels last", "ceiling, channels last, fused"
    plain, tenth = "plain loop, a tenth of the images", "cxrnet, a tenth of the images"
    jobs = [
        Job(plain, "torch_jobs:plain_predict", {**task, "root": str(few)}),
        Job("ceiling", "torch_jobs:ceiling_predict", {**task, "fused": False}),
        Job(ceiling, "torch_jobs:ceiling_predict", {**task, "channels_last": True, "fused": False}),
        Job(fused, "torch_jobs:ceiling_predict", {**task, "channels_last": True, "fused": True}),
        Job("cxrnet", "cxrnet_jobs:predict", {**own, "images": str(many / "train")}),
        Job(tenth, "cxrnet_jobs:predict", {**own, "images": str(few / "train")}),
    ]
    ratios = [
        _times("cxrnet", ceiling, least=0.9),
        _times("cxrnet", fused, least=0.9),
        _times("cxrnet", plain),
        _times("cxrnet", tenth, "memory_mb", most=1.1),
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
    lines: dict[str, tuple[str, ...]] = {
        "python": ("-c", "pass"),
        "import cxrnet": ("-c", "import cxrnet"),
        "train --help": ("-m", "cxrnet.train", "--help"),
        "train with a mistake": ("-m", "cxrnet.train", "model=none_of_these"),
        "train with a wrong value": ("-m", "cxrnet.train", "data.batch_size=0"),
        libraries: ("-c", "import torch, lightning.pytorch, mlflow"),
    }
    jobs = [
        Job(name, "data_jobs:command", {"line": list(line), "fails": " with a " in name})
        for name, line in lines.items()
    ]
    jobs.append(Job(batch, "data_jobs:first_batch", {"overrides": words}))

    def longer(name: str, base: str, most: float) -> Ratio:
        return Ratio(f"{name} − {base}", ((name, "seconds"), (base, "seconds")), operator.sub, most=most, unit="s")

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
    task = {**plan.task(options.model.backbone), **plan.cxrnet("growth")}
    roots = {f"set-up of {n:,} training images": str(plan.images(n)) for n in counts}
    jobs = [
        Job("manifest", "data_jobs:manifest", {"file": file, "seed": options.seed}),
        *(Job(name, "cxrnet_jobs:setup", {**task, "root": root}) for name, root in roots.items()),
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
