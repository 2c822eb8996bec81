"""How long a user waits before anything happens."""

from cxrnet.benchmarking.jobs import Job
from cxrnet.benchmarking.materials import many_images
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.overrides import override
from cxrnet.benchmarking.plan import Group, Plan
from cxrnet.benchmarking.ratios import Ratio, difference

PYTHON, IMPORT, HELP = "python", "import cxrnet", "train --help"
MISTAKE, VALUE = "train with a mistake", "train with a wrong value"
LIBRARIES, BATCH = "import torch, lightning, mlflow", "train, to the first batch"
IMPORT_SECONDS, ANSWER_SECONDS, BATCH_SECONDS = 0.1, 1.5, 1.5


def startup(plan: Plan) -> Group:
    """Commands, each in a process of its own; the last one trains a small network on a few images."""
    root = many_images(plan.drawn, 2 * plan.batch_size, plan.config["file_size"], plan.seed)
    first = [
        "data=folder", override("data.root", root), f"data.size={list(plan.size)}",
        f"data.batch_size={plan.batch_size}", "model=custom_cnn", "schedule=full", "augment=light",
        f"trainer={plan.trainer}",
    ]  # fmt: skip
    jobs = [
        _command(PYTHON, "-c", "pass"),
        _command(IMPORT, "-c", "import cxrnet"),
        _command(HELP, "-m", "cxrnet.train", "--help"),
        _command(MISTAKE, "-m", "cxrnet.train", "model=none_of_these", fails=True),
        _command(VALUE, "-m", "cxrnet.train", "data.batch_size=0", fails=True),
        _command(LIBRARIES, "-c", "import torch, lightning.pytorch, mlflow"),
        Job(BATCH, "commands:first_batch", {"overrides": first}),
    ]
    return Group("Start-up", ("seconds",), jobs, _ratios)


def _command(name: str, *line: str, fails: bool = False) -> Job:
    return Job(name, "commands:run", {"line": list(line), "fails": fails})


def _ratios(table: Table) -> list[Ratio]:
    def seconds(job: str) -> float | None:
        return table.get(job, "seconds")

    imported = difference(seconds(IMPORT), seconds(PYTHON))
    beyond = difference(seconds(BATCH), seconds(LIBRARIES))
    return [
        Ratio(f"{IMPORT} − {PYTHON}", imported, IMPORT_SECONDS, "at most", "s"),
        Ratio(HELP, seconds(HELP), ANSWER_SECONDS, "at most", "s"),
        Ratio(MISTAKE, seconds(MISTAKE), ANSWER_SECONDS, "at most", "s"),
        Ratio(VALUE, seconds(VALUE), ANSWER_SECONDS, "at most", "s"),
        Ratio(f"{BATCH} − {LIBRARIES}", beyond, BATCH_SECONDS, "at most", "s"),
    ]
