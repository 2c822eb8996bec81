"""Rates of training, all layers and the last ones, after warm-up: beside the plain loop, and against the ceiling."""

from pathlib import Path
from typing import Any

from cxrnet.benchmarking.groups.frozen import keras_job
from cxrnet.benchmarking.jobs import Job
from cxrnet.benchmarking.materials import many_images
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.overrides import train_overrides
from cxrnet.benchmarking.plan import PRECISIONS, Group, Plan
from cxrnet.benchmarking.ratios import Ratio, quotient

OF_CEILING = 0.95
PARTLY_FROZEN = 1.5  # times the plain loop in the same layout and precision
# Times the plain loop in fp32, on processors.
PLAIN_ON_CPU = {("resnet50", "fp32"): 1.4, ("resnet50", "bf16"): 3.0}
EPOCHS = 2  # the first one is warm-up

LAST, STORED = "cxrnet, last layers", "cxrnet, last layers, activations stored"
STORE_GB = 10


def train(plan: Plan) -> Group:
    """Every backbone of ``models`` in every precision."""
    steps = plan.config["train"]["steps"]
    root = many_images(plan.drawn, steps * plan.batch_size, plan.config["file_size"], plan.seed)
    jobs = [job for backbone in plan.config["models"] for job in _of_backbone(plan, root, backbone)]
    return Group(
        "Training", ("images_per_second", "waiting_share", "memory_mb"), jobs, lambda table: _ratios(plan, table)
    )


def _of_backbone(plan: Plan, root: Path, backbone: str) -> list[Job]:
    jobs = []
    for precision in _precisions(plan):
        jobs += _loops(plan, root, backbone, precision)
        jobs += _ceilings(plan, backbone, precision)
        last = {"last": plan.config["train"]["last"]}
        jobs += [
            _own(plan, root, backbone, precision, "cxrnet", "all", activations_gb=0),
            _own(plan, root, backbone, precision, LAST, last, activations_gb=0),
            _own(plan, root, backbone, precision, STORED, last, activations_gb=STORE_GB),
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
    steps, compile_too = plan.config["train"]["steps"], plan.config["compile"]
    task = {**plan.shared(backbone), "trainable": "all", "steps": steps, "bf16": precision == "bf16"}
    variants = [("", False, False), (", channels last", True, False)]
    variants += [(", channels last, compiled", True, True)] if compile_too else []
    jobs = [
        Job(
            _name(backbone, f"ceiling{words}", precision),
            "ceiling:train",
            {**task, "channels_last": channels_last, "compiled": compiled},
        )
        for words, channels_last, compiled in variants
    ]
    timm = {**task, "channels_last": True, "compiled": False}
    timm.pop("trainable")
    return [*jobs, Job(_name(backbone, "timm's step", precision), "ceiling:train_timm", timm, needs=("timm",))]


def _own(
    plan: Plan,
    root: Path,
    backbone: str,
    precision: str,
    name: str,
    trainable: Any,  # noqa: ANN401 (as a phase has it)
    activations_gb: float,
) -> Job:
    settings = plan.config["train"]
    phase = {"trainable": trainable, "epochs": EPOCHS, "lr": settings["lr"]}
    overrides = train_overrides(
        plan, root, backbone, "none", phase, views=1, augment=True, bf16=precision == "bf16",
        cache=plan.scratch / f"train-{backbone}-{precision}-{name}", steps=settings["steps"],
    )  # fmt: skip
    overrides.append(f"schedule.activations_gb={activations_gb}")
    return Job(_name(backbone, name, precision), "own:train", {"overrides": overrides, "fresh": True})


def _ratios(plan: Plan, table: Table) -> list[Ratio]:
    ratios = []
    for backbone in plan.config["models"]:
        for precision in _precisions(plan):
            ratios += _of_precision(plan, table, backbone, precision)
    return ratios


def _of_precision(plan: Plan, table: Table, backbone: str, precision: str) -> list[Ratio]:
    def against(own: str, rival: str, target: float | None, rival_precision: str = precision) -> Ratio:
        name, other = _name(backbone, own, precision), _name(backbone, rival, rival_precision)
        rates = table.get(name, "images_per_second"), table.get(other, "images_per_second")
        return Ratio(f"{name} / {other.removeprefix(f'{backbone}, {precision}: ')}", quotient(*rates), target)

    cpu = plan.device == "cpu"
    on_cpu = PLAIN_ON_CPU.get((backbone, precision)) if cpu else None
    ratios = [
        against("cxrnet", "ceiling, channels last", OF_CEILING),
        against("cxrnet", "plain loop", on_cpu, rival_precision="fp32"),
        against("cxrnet", "timm's parts", None),
        against("cxrnet", "Keras recipe", None, rival_precision="fp32"),
        against(LAST, "plain loop, channels last, last layers", PARTLY_FROZEN),
        # The table is made once in a phase, before what is timed here; views and epochs say what that costs an epoch.
        against(STORED, "plain loop, channels last, last layers", None),
        against("ceiling, channels last", "timm's step", None if cpu or precision == "fp32" else 1.0),
    ]
    if plan.config["compile"]:
        ratios.append(against("ceiling, channels last, compiled", "ceiling, channels last", None))
    return ratios


def _name(backbone: str, contender: str, precision: str) -> str:
    return f"{backbone}, {precision}: {contender}"
