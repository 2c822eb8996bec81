"""Rates of training, all layers and the last ones, after warm-up: beside the plain loop, and against the ceiling."""

from pathlib import Path
from typing import Any

from cxrnet.benchmarking.groups.frozen import keras_job
from cxrnet.benchmarking.jobs import Job
from cxrnet.benchmarking.materials import many_images
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.overrides import train_overrides
from cxrnet.benchmarking.plan import PRECISIONS, Group, Plan
from cxrnet.benchmarking.ratios import Ratio, difference, quotient, repaid_after

OF_CEILING = 0.95
PARTLY_FROZEN = 1.5  # times the plain loop in the same layout and precision
# Times the plain loop in fp32, on processors.
PLAIN_ON_CPU = {("resnet50", "fp32"): 1.4, ("resnet50", "bf16"): 3.0}
EPOCHS = 2  # the first one is warm-up

OWN, COMPILED = "cxrnet", "cxrnet, compiled"
LAST, STORED = "cxrnet, last layers", "cxrnet, last layers, features stored"
CEILING, ARITHMETIC = "ceiling, channels last", "ceiling, channels last, bf16 arithmetic"
SCRIPT = "timm's benchmark.py"
STORE_GB = 10


def train(plan: Plan) -> Group:
    """Every backbone of ``models`` in every precision."""
    steps = plan.config["train"]["steps"]
    root = many_images(plan.drawn, steps * plan.batch_size, plan.config["file_size"], plan.seed)
    jobs = [job for backbone in plan.config["models"] for job in _of_backbone(plan, root, backbone)]
    numbers = ["images_per_second", "warm_up_seconds", "memory_mb"]
    numbers += ["device_memory_mb"] if plan.device == "cuda" else []
    return Group("Training", numbers, jobs, lambda table: _ratios(plan, table))


def _of_backbone(plan: Plan, root: Path, backbone: str) -> list[Job]:
    jobs = []
    for precision in _precisions(plan):
        jobs += _loops(plan, root, backbone, precision)
        jobs += _ceilings(plan, backbone, precision)
        last = {"last": plan.config["train"]["last"]}
        jobs += [
            _own(plan, root, backbone, precision, OWN, "all", features_gb=0),
            *([_own(plan, root, backbone, precision, COMPILED, "all", 0, True)] if plan.config["compile"] else []),
            _own(plan, root, backbone, precision, LAST, last, features_gb=0),
            _own(plan, root, backbone, precision, STORED, last, features_gb=STORE_GB),
        ]
    return jobs


def _precisions(plan: Plan) -> list[str]:
    return [PRECISIONS[name] for name in plan.config["precisions"]]


def _loops(plan: Plan, root: Path, backbone: str, precision: str) -> list[Job]:
    settings = plan.config["train"]
    task = {
        **plan.shared(backbone),
        "root": str(root), "augment": True, "epochs": EPOCHS, "steps": settings["steps"], "lr": settings["lr"],
        "seed": plan.seed,
    }  # fmt: skip
    bf16 = precision == "bf16"
    plain = {**task, "bf16": bf16, "channels_last": False, "trainable": "all", "weights": "none"}
    partly = {**plain, "channels_last": True, "trainable": {"last": settings["last"]}}
    as_timm = {**task, "bf16": bf16, "channels_last": bf16, "trainable": "all"}
    jobs = [
        Job(_name(backbone, "plain loop", precision), "plain:train", plain),
        Job(_name(backbone, "plain loop, channels last, last layers", precision), "plain:train", partly),
        Job(_name(backbone, "timm's parts", precision), "timm_recipe:train", as_timm, needs=("timm",)),
    ]
    if not bf16:
        keras = {**task, "trainable": "all", "weights": None}
        jobs.append(keras_job(plan, _name(backbone, "Keras recipe", precision), keras))
    return jobs


def _ceilings(plan: Plan, backbone: str, precision: str) -> list[Job]:
    config = plan.config
    nchw = {
        **plan.shared(backbone),
        "steps": config["train"]["steps"], "bf16": precision == "bf16", "channels_last": False,
    }  # fmt: skip
    task = {**nchw, "channels_last": True}
    script = config["timm_benchmark"]

    def job(contender: str, function: str, settings: dict[str, Any], **more: Any) -> Job:  # noqa: ANN401 (of a Job)
        return Job(_name(backbone, contender, precision), function, settings, **more)

    jobs = [
        job("ceiling", "ceiling:train", {**nchw, "compiled": False}),
        job(CEILING, "ceiling:train", {**task, "compiled": False}),
        job("timm's step", "ceiling:train_timm", task, needs=("timm",)),
        job(
            SCRIPT, "timm_script:train", {**task, "script": script and str(Path(script).resolve())}, needs=("timm",),
            missing=None if script else "timm's package doesn't hold it; give timm_benchmark=<the file>",
        ),
    ]  # fmt: skip
    if config["compile"]:
        jobs.append(job(f"{CEILING}, compiled", "ceiling:train", {**task, "compiled": True}))
    if _arithmetic(plan, precision):
        jobs.append(job(ARITHMETIC, "ceiling:train_in_bf16_arithmetic", task))
    return jobs


def _arithmetic(plan: Plan, precision: str) -> bool:
    """Whether oneDNN's is measured: what it computes in float32, on processors."""
    return bool(plan.config["arithmetic"]) and precision == "fp32" and plan.device == "cpu"


def _own(
    plan: Plan,
    root: Path,
    backbone: str,
    precision: str,
    name: str,
    trainable: Any,  # noqa: ANN401 (as a phase has it)
    features_gb: float,
    compiled: bool = False,
) -> Job:
    settings = plan.config["train"]
    phase = {"trainable": trainable, "epochs": EPOCHS, "lr": settings["lr"]}
    overrides = train_overrides(
        plan, root, backbone, "none", phase, views=1, augment=True, bf16=precision == "bf16",
        cache=plan.scratch / f"train-{backbone}-{precision}-{name}", steps=settings["steps"],
    )  # fmt: skip
    overrides += [f"schedule.features_gb={features_gb}", f"compile={str(compiled).lower()}"]
    return Job(_name(backbone, name, precision), "own:train", {"overrides": overrides, "fresh": True})


def _ratios(plan: Plan, table: Table) -> list[Ratio]:
    ratios = []
    for backbone in plan.config["models"]:
        for precision in _precisions(plan):
            ratios += _of_precision(plan, table, backbone, precision)
    return ratios


def _of_precision(plan: Plan, table: Table, backbone: str, precision: str) -> list[Ratio]:
    def against(own: str, rival: str, target: float | None = None, rival_precision: str = precision) -> Ratio:
        name, other = _name(backbone, own, precision), _name(backbone, rival, rival_precision)
        rates = table.get(name, "images_per_second"), table.get(other, "images_per_second")
        return Ratio(f"{name} / {other.removeprefix(f'{backbone}, {precision}: ')}", quotient(*rates), target)

    cpu = plan.device == "cpu"
    on_cpu = PLAIN_ON_CPU.get((backbone, precision)) if cpu else None
    # The VGG of timm has two wide layers more before its classifier.
    of_timm = None if cpu or precision == "fp32" or backbone.startswith("vgg") else 1.0
    ratios = [
        against(OWN, CEILING, OF_CEILING),
        against(OWN, "plain loop", on_cpu, rival_precision="fp32"),
        against(OWN, "timm's parts"),
        against(OWN, "Keras recipe", rival_precision="fp32"),
        against(LAST, "plain loop, channels last, last layers", PARTLY_FROZEN),
        # The table is made once in a phase, before what is timed here; views and epochs say what that costs an epoch.
        against(STORED, "plain loop, channels last, last layers"),
        against(CEILING, "timm's step", of_timm),
        against(CEILING, SCRIPT, of_timm),
    ]
    if plan.config["compile"]:
        for plain, compiled in ((OWN, COMPILED), (CEILING, f"{CEILING}, compiled")):
            names = _name(backbone, plain, precision), _name(backbone, compiled, precision)
            ratios += [against(compiled, plain), *_compiling(table, *names)]
    if _arithmetic(plan, precision):
        name = _name(backbone, ARITHMETIC, precision)
        moved = table.get(name, "logits_moved")
        ratios += [against(ARITHMETIC, CEILING), Ratio(f"{name}: logits move by (relative L2)", moved)]
    return ratios


def _compiling(table: Table, plain: str, compiled: str) -> list[Ratio]:
    """What compiling costs at first, and the images after which it has paid; without the latter where it never does."""
    rates = [table.get(name, "images_per_second") for name in (plain, compiled)]
    price = difference(table.get(compiled, "warm_up_seconds"), table.get(plain, "warm_up_seconds"))
    paid = Ratio(f"{compiled}: has paid after", repaid_after(price, *rates), unit="images")
    never = None not in rates and paid.value is None
    return [Ratio(f"{compiled}: compiling takes", price, unit="s"), *([] if never else [paid])]


def _name(backbone: str, contender: str, precision: str) -> str:
    return f"{backbone}, {precision}: {contender}"
