"""The data path: the first set-up against the decoder's own rate, and what later epochs spend waiting."""

from math import ceil

from cxrnet.benchmarking.jobs import Job
from cxrnet.benchmarking.materials import labelled_images, many_images
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.overrides import train_overrides
from cxrnet.benchmarking.plan import Group, Plan
from cxrnet.benchmarking.ratios import Ratio, quotient
from cxrnet.data.duplicates.search import SEARCH_SIZE
from cxrnet.data.images.files import find_images

OF_DECODER = 0.9
WAITING = 0.03
# The second also resizes to the size at which copies are looked for: no set-up that looks for them can do without. The
# last resizes to none: more than any set-up can reach.
DECODER, BOTH_SIZES, ALONE = "decoder", "decoder, both sizes", "decoder, not resized"
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
    # So many epochs that the later ones have the steps that are asked for; a small set has few in each.
    wanted = config["data"]["steps"]
    steps = min(wanted, ceil(len(find_images(root / "train").images) / plan.batch_size))
    phase = {"trainable": "all", "epochs": 1 + ceil(wanted / steps), "lr": config["train"]["lr"]}
    overrides = train_overrides(
        plan, root, plan.backbone, "none", phase, views=1, augment=True, bf16=False,
        cache=plan.scratch / "data", steps=steps,
    )  # fmt: skip
    jobs = [
        Job(DECODER, "decoder:decode", {"root": str(root), "sizes": [list(plan.size)]}),
        Job(BOTH_SIZES, "decoder:decode", {"root": str(root), "sizes": [list(plan.size), list(SEARCH_SIZE)]}),
        Job(ALONE, "decoder:decode", {"root": str(root), "sizes": []}),
        Job(FIRST, "own:setup", {"overrides": overrides, "fresh": True}),
        Job(AGAIN, "own:setup", {"overrides": overrides, "fresh": False}),
        Job(EPOCHS, "own:train", {"overrides": overrides, "fresh": False}),
    ]
    return Group("Data path", ("images_per_second", "waiting_share", "memory_mb"), jobs, _ratios)


def _ratios(table: Table) -> list[Ratio]:
    def times(job: str, rival: str = DECODER) -> float | None:
        return quotient(table.get(job, "images_per_second"), table.get(rival, "images_per_second"))

    return [
        Ratio(f"{FIRST} / {DECODER}", times(FIRST), OF_DECODER),
        Ratio(f"{FIRST} / {BOTH_SIZES}", times(FIRST, BOTH_SIZES)),
        Ratio(f"{FIRST} / {ALONE}", times(FIRST, ALONE)),
        Ratio(f"{AGAIN} / {DECODER}", times(AGAIN)),
        Ratio("share of later epochs spent waiting", table.get(EPOCHS, "waiting_share"), WAITING, "at most"),
    ]
