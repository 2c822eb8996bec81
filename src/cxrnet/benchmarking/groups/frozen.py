"""Fit time of a head on a frozen backbone: from image files to a fitted head, with a look at validation every epoch."""

import sys
from pathlib import Path

from cxrnet.benchmarking.jobs import Job
from cxrnet.benchmarking.materials import labelled_images
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.overrides import train_overrides
from cxrnet.benchmarking.plan import Group, Plan
from cxrnet.benchmarking.ratios import Ratio, difference, quotient

FASTER = 10.0  # than the Keras recipe and the plain loop


def frozen(plan: Plan) -> Group:
    """The job with and without augmentation; cxrnet with K views, from a cold cache and from a warm one."""
    config = plan.config
    root = labelled_images(plan.drawn, config["data"]["root"], config["images"], config["file_size"], plan.seed)
    jobs = [job for augment in (False, True) for job in (*_others(plan, root, augment), *_own(plan, root, augment))]
    return Group(
        "A head on a frozen backbone",
        ("seconds", "val_accuracy", "memory_mb"),
        jobs,
        lambda table: _ratios(plan, table),
    )


def _others(plan: Plan, root: Path, augment: bool) -> list[Job]:
    config, settings = plan.config, plan.config["frozen"]
    task = {
        **plan.shared(plan.backbone),
        "root": str(root), "trainable": "head", "augment": augment, "epochs": settings["epochs"], "steps": None,
        "lr": settings["lr"], "seed": plan.seed,
    }  # fmt: skip
    torch_task = {**task, "bf16": False, "channels_last": False}
    keras_task = {**task, "weights": config["keras_weights"]}
    return [
        Job(_named("plain loop", augment), "plain:train", {**torch_task, "weights": plan.weights}),
        keras_job(plan, _named("Keras recipe", augment), keras_task),
        Job(_named("timm's parts", augment), "timm_recipe:train", torch_task, needs=("timm",)),
    ]


def _own(plan: Plan, root: Path, augment: bool) -> list[Job]:
    settings, jobs = plan.config["frozen"], []
    phase = {"trainable": "head", "epochs": settings["epochs"], "lr": settings["lr"]}
    for views in (0, *_views(plan, augment)):
        cache = plan.scratch / f"frozen-{views}-{augment}"
        overrides = train_overrides(
            plan, root, plan.backbone, plan.weights, phase, views, augment, bf16=False, cache=cache
        )
        jobs.append(Job(own_name(views, augment), "own:train", {"overrides": overrides, "fresh": True}))
        if views:  # the warm one must stand behind the cold one
            warm = {"overrides": overrides, "fresh": False}
            jobs.append(Job(own_name(views, augment, warm=True), "own:train", warm))
    return jobs


def _views(plan: Plan, augment: bool) -> list[int]:
    return list(plan.config["frozen"]["views"]) if augment else [1]


def _ratios(plan: Plan, table: Table) -> list[Ratio]:
    # An accuracy on random weights tells nothing; timm's parts have no others.
    weights = {"plain loop": plan.weights, "Keras recipe": plan.config["keras_weights"] or "none"}
    rivals = [rival for rival, its in weights.items() if "none" not in (its, plan.weights)]
    ratios = []
    for augment in (False, True):
        for views in _views(plan, augment):
            ratios += _of_one(table, own_name(views, augment), augment, FASTER)
            ratios += _of_one(table, own_name(views, augment, warm=True), augment, None)
            ratios += [_accuracy(table, own_name(views, augment), _named(rival, augment)) for rival in rivals]
    return ratios


def _of_one(table: Table, own: str, augment: bool, target: float | None) -> list[Ratio]:
    return [
        Ratio(
            f"time: {rival} / {own}",
            quotient(table.get(_named(rival, augment), "seconds"), table.get(own, "seconds")),
            target if rival != "timm's parts" else None,
        )
        for rival in ("plain loop", "Keras recipe", "timm's parts")
    ]


def _accuracy(table: Table, own: str, rival: str) -> Ratio:
    value = difference(table.get(own, "val_accuracy"), table.get(rival, "val_accuracy"))
    return Ratio(f"accuracy: {own} − {rival}", value, 0.0)


def own_name(views: int, augment: bool, warm: bool = False) -> str:
    """What a job of cxrnet is called; 0 views is the long way."""
    if views == 0:
        return _named("cxrnet on images", augment)
    kept = ", warm cache" if warm else ""
    return f"cxrnet, {views} view{'s' * (views > 1)}{kept}" if augment else f"cxrnet{kept}"


def keras_job(plan: Plan, name: str, settings: dict[str, object]) -> Job:
    """A job of the Keras recipe, in its own Python if one is given."""
    interpreter = plan.config["keras_python"] or sys.executable
    return Job(name, "keras_recipe:train", settings, interpreter=str(interpreter))


def _named(contender: str, augment: bool) -> str:
    return f"{contender}, augmented" if augment else contender
