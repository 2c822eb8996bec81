"""The data path: the first set-up against the decoder's own rate, and what later epochs spend waiting."""

from cxrnet.benchmarking.jobs import Job
from cxrnet.benchmarking.materials import labelled_images, many_images
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.overrides import train_overrides
from cxrnet.benchmarking.plan import Group, Plan
from cxrnet.benchmarking.ratios import Ratio, quotient

OF_DECODER = 0.9
WAITING = 0.03
FIRST, AGAIN, EPOCHS = "cxrnet, first set-up", "cxrnet, second set-up", "cxrnet, epochs"


def data(plan: Plan) -> Group:
    """The user's own images, or as many drawn ones as are predicted in the group of that name."""
    config = plan.config
    own, side = config["data"]["root"], config["file_size"]
    root = (
        many_images(plan.drawn, config["predict"]["images"], side, plan.seed)
        if own is None
        else labelled_images(plan.drawn, own, config["images"], side, plan.seed)
    )
    phase = {"trainable": "all", "epochs": 2, "lr": config["train"]["lr"]}
    overrides = train_overrides(
        plan, root, plan.backbone, "none", phase, views=1, augment=True, bf16=False,
        cache=plan.scratch / "data", steps=config["train"]["steps"],
    )  # fmt: skip
    jobs = [
        Job("decoder", "decoder:decode", {"root": str(root), "size": list(plan.size)}),
        Job(FIRST, "own:setup", {"overrides": overrides, "fresh": True}),
        Job(AGAIN, "own:setup", {"overrides": overrides, "fresh": False}),
        Job(EPOCHS, "own:train", {"overrides": overrides, "fresh": False}),
    ]
    return Group("Data path", ("images_per_second", "waiting_share", "memory_mb"), jobs, _ratios)


def _ratios(table: Table) -> list[Ratio]:
    def times(job: str) -> float | None:
        return quotient(table.get(job, "images_per_second"), table.get("decoder", "images_per_second"))

    return [
        Ratio(f"{FIRST} / decoder", times(FIRST), OF_DECODER),
        Ratio(f"{AGAIN} / decoder", times(AGAIN)),
        Ratio("share of the second epoch spent waiting", table.get(EPOCHS, "waiting_share"), WAITING, "at most"),
    ]
