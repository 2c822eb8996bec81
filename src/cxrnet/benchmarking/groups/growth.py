"""What becomes of the times when a data set grows."""

from cxrnet.benchmarking.jobs import Job
from cxrnet.benchmarking.materials import many_images
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.plan import Group, Plan
from cxrnet.benchmarking.ratios import Ratio, quotient

OPEN_SECONDS, SPLIT_SECONDS, MEMORY_MB = 3.0, 30.0, 1000.0
FLAT = 1.2  # times the time per image of the smallest data set
MANIFEST = "manifest"


def growth(plan: Plan) -> Group:
    """A manifest of many rows, and the first set-up of data sets of several sizes; once, for it takes long."""
    settings = plan.config["growth"]
    file = str(plan.scratch / "manifest.parquet")
    root = many_images(plan.drawn, max(settings["images"]), plan.config["file_size"], plan.seed) / "train"
    task = {
        "root": str(root), "size": list(plan.size), "batch_size": plan.batch_size, "seed": plan.seed,
        "scratch": str(plan.scratch),
    }  # fmt: skip
    jobs = [
        Job(MANIFEST, "growing:manifest", {"file": file, "seed": plan.seed}),
        *(Job(set_up(n), "growing:setup", {**task, "images": n}) for n in sorted(settings["images"])),
    ]
    before = [Job("rows", "growing:write_rows", {"file": file, "rows": settings["rows"], "seed": plan.seed})]
    numbers = ("ms_per_image", "seconds", "open_seconds", "split_seconds", "memory_mb")
    return Group("Growth", numbers, jobs, lambda table: _ratios(plan, table), before, repeats=1)


def set_up(images: int) -> str:
    """What the set-up of so many images is called."""
    return f"set-up of {images:,} images"


def _ratios(plan: Plan, table: Table) -> list[Ratio]:
    least, most = min(plan.config["growth"]["images"]), max(plan.config["growth"]["images"])
    per_image = [table.get(set_up(n), "ms_per_image") for n in (most, least)]
    rows = f"{plan.config['growth']['rows']:,} rows"
    return [
        Ratio(f"{rows}: open", table.get(MANIFEST, "open_seconds"), OPEN_SECONDS, "at most", "s"),
        Ratio(f"{rows}: split", table.get(MANIFEST, "split_seconds"), SPLIT_SECONDS, "at most", "s"),
        Ratio(f"{rows}: memory", table.get(MANIFEST, "memory_mb"), MEMORY_MB, "at most", "MB"),
        Ratio(f"time per image: {most:,} images / {least:,}", quotient(*per_image), FLAT, "at most"),
    ]
