"""Prediction of a folder of images, from files to a file, against the forward passes that the machine can do."""

from cxrnet.benchmarking.jobs import Job
from cxrnet.benchmarking.materials import many_images
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.plan import Group, Plan
from cxrnet.benchmarking.ratios import Ratio, quotient

OF_CEILING = 0.9
MEMORY = 1.1  # times that of a tenth of the images
OWN, TENTH, PLAIN = "cxrnet", "cxrnet, a tenth of the images", "plain loop, a tenth of the images"
# The best layout in the precision of predictions; and the very passes that cxrnet does, which none can outdo.
CEILING, OWN_PASSES = "ceiling, channels last", "ceiling, channels last, folded"


def predict(plan: Plan) -> Group:
    """One bundle, a folder and a tenth of it; in fp32, as evaluation is."""
    settings, shared = plan.config["predict"], plan.shared(plan.backbone)
    bundle, size = plan.scratch / "bundle", list(plan.size)
    counts = {OWN: settings["images"], TENTH: max(8, settings["images"] // 10)}
    roots = {
        name: many_images(plan.drawn, count, plan.config["file_size"], plan.seed) / "train"
        for name, count in counts.items()
    }
    forward = {**shared, "steps": settings["steps"], "bf16": False}
    jobs = [
        # First, and short: a machine's pace changes within minutes, and cxrnet is held against the ceiling beside it.
        Job(PLAIN, "plain:predict", {**shared, "root": str(roots[TENTH])}),
        Job("ceiling", "ceiling:predict", {**forward, "channels_last": False, "fold": False}),
        Job(CEILING, "ceiling:predict", {**forward, "channels_last": True, "fold": False}),
        Job(OWN_PASSES, "ceiling:predict", {**forward, "channels_last": True, "fold": True}),
        *(
            Job(
                name,
                "own:predict",
                {
                    "bundle": str(bundle), "images": str(root), "output": str(plan.scratch / "predictions.csv"),
                    "batch_size": plan.batch_size, "device": plan.device,
                },
            )
            for name, root in roots.items()
        ),
    ]  # fmt: skip
    write = {"folder": str(bundle), "backbone": plan.backbone, "weights": "none", "size": size}
    before = [Job("bundle", "own:write_bundle", write)]
    return Group("Prediction", ("images_per_second", "memory_mb"), jobs, _ratios, before)


def _ratios(table: Table) -> list[Ratio]:
    def times(rival: str, number: str = "images_per_second") -> float | None:
        return quotient(table.get(OWN, number), table.get(rival, number))

    return [
        Ratio(f"rate: {OWN} / {CEILING}", times(CEILING), OF_CEILING),
        Ratio(f"rate: {OWN} / {OWN_PASSES}", times(OWN_PASSES), OF_CEILING),
        Ratio(f"rate: {OWN} / {PLAIN}", times(PLAIN)),
        Ratio(f"memory: {OWN} / {TENTH}", times(TENTH, "memory_mb"), MEMORY, "at most"),
    ]
