"""How fast cxrnet is on this machine, beside what one would do otherwise and what the machine can do.

    python scripts/benchmark/run.py                           everything; takes hours on a few cores
    python scripts/benchmark/run.py only=[frozen,train]       some groups
    python scripts/benchmark/run.py only=frozen data.root=my_xrays keras_python=<python that has TensorFlow>
    python scripts/benchmark/run.py only=train batch_size=256 train.steps=100 models=[resnet50,mobilenet_v2,vgg16]

Every number goes into <outputs>/benchmarks/<time>/benchmark.json.
"""

import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from groups import GROUPS, Plan
from jobs import Job, Measurement, Numbers
from omegaconf import DictConfig, OmegaConf
from options import CONFIG, read_options
from results import UNITS, Group, number_text, plot_growth, show
from rich import get_console

from cxrnet.core import console
from cxrnet.core.atomic import write_json
from cxrnet.core.machine import machine_told
from cxrnet.core.process import Terminated, signals_raise
from cxrnet.errors import CxrnetError

USER_ERROR, INTERRUPTED = 2, 130  # exit statuses, as of argparse and of a shell


def main(words: Sequence[str]) -> int:
    """Run the benchmark that a command line asks for; return the exit status."""
    if {"--help", "-h"} & set(words):
        print(f"{__doc__}\n{CONFIG.read_text(encoding='utf-8')}", end="")
        return 0
    folder = None
    try:
        options = read_options(words, list(GROUPS))
        folder = Path(options.outputs, "benchmarks", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
        with machine_told(), signals_raise():
            folder.mkdir(parents=True)
            benchmark(options, folder.resolve(), shlex.join(["python", "scripts/benchmark/run.py", *words]))
    except CxrnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except (KeyboardInterrupt, Terminated) as error:
        print(f"stopped; what was measured stays in '{folder}'", file=sys.stderr)
        return int(error.code or 0) if isinstance(error, Terminated) else INTERRUPTED
    print(f"\nnumbers: {folder / 'benchmark.json'}")
    return 0


def benchmark(options: DictConfig, folder: Path, command: str) -> None:
    """Measure groups one after the other; what was measured is on disk after each job.

    Raises:
        CxrnetError: jobs failed; the others' results are written.
    """
    log, scratch = folder / "jobs.log", folder / "scratch"
    machine = do(Job("machine", "cxrnet_jobs:machine", {"device": options.device}), log)
    cores = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB"
    console.say(
        "machine", f"{cores}, {machine['accelerator'] or machine['device']}, torch {machine['versions']['torch']}"
    )
    weights = find_weights(options, log) if "frozen" in options.only else "none"
    drawn = Path(options.outputs).resolve() / "benchmarks" / "images"
    plan = Plan(options, machine["device"], drawn, scratch, weights)
    check_overrides(plan, log)
    about = {"command": command, "machine": machine, "weights": weights, "config": OmegaConf.to_object(options)}
    results: dict[str, dict[str, Any]] = {}
    failed: list[Measurement] = []
    try:
        for name in options.only:
            scratch.mkdir()
            group = GROUPS[name](plan)
            for job in group.before:
                do(job, log)
            measured = [Measurement(job) for job in group.jobs]
            for _ in measure(group, measured, group.rounds or options.repeats, log):
                results[name] = group.to_dict(measured)
                write_json(folder / "benchmark.json", {**about, "groups": results})
            shutil.rmtree(scratch)
            show(results[name], group.numbers)
            failed += [one for one in measured if one.failed is not None]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if "growth" in results:
        plot_growth(results["growth"], folder / "growth.png")
    if failed:
        reasons = ", ".join(f"'{one.job.name}' ({one.failed})" for one in failed)
        raise CxrnetError(f"benchmark: failed: {reasons}; see '{log}'")


def measure(group: Group, measured: Sequence[Measurement], rounds: int, log: Path) -> Iterator[None]:
    """Do every job once, then every job a second time, and so on; yield after each.

    A job that is missing or failed isn't tried again.
    """
    for number in range(1, rounds + 1):
        for one in measured:
            if one.missing is not None or one.failed is not None:
                continue
            begin = time.monotonic()
            with get_console().status(f"{group.title}, round {number} of {rounds}: {one.job.name}"):
                one.run(log)
            seconds = time.monotonic() - begin
            yield  # what is said has been written
            console.say(f"round {number}/{rounds}", f"{one.job.name}: {_came(one, group.numbers)} ({seconds:.0f} s)")


def _came(one: Measurement, numbers: Sequence[str]) -> str:
    if one.missing is not None:
        return f"missing, {one.missing}"
    if one.failed is not None:
        return f"failed, {one.failed}"
    name = next(name for name in numbers if name in one.repeats[-1])
    return f"{number_text(one.repeats[-1][name])} {UNITS[name]}"


def find_weights(options: DictConfig, log: Path) -> str:
    """Ask for the weights once, and not in every job that is timed; ``none`` where they can't be had."""
    job = Job("weights", "cxrnet_jobs:find_weights", {**options.model, "size": list(options.size)})
    found = do(job, log)
    if found["origin"] != "random":
        console.say("weights", found["detail"])
        return str(options.model.weights)
    console.warn(f"random weights, so that no accuracy tells anything: {found['detail']}")
    return "none"


def check_overrides(plan: Plan, log: Path) -> None:
    """Refuse the user's further words for cxrnet's training before hours are spent.

    Raises:
        CxrnetError: they won't do in a job of the groups that are asked for.
    """
    only = set(plan.options.only)
    kinds: list[tuple[bool, int | None]] = [(False, None), (True, None)] if "frozen" in only else []
    kinds += [(True, 1)] if only & {"train", "data"} else []
    if plan.options.overrides and kinds:
        backbone, own = plan.options.model.backbone, plan.cxrnet("unused")
        tasks = [{**plan.task(backbone, augment=augment, steps=steps), **own} for augment, steps in kinds]
        do(Job("overrides", "cxrnet_jobs:check", {"tasks": tasks}), log)


def do(job: Job, log: Path) -> Numbers:
    """Do a job without which nothing can be measured.

    Raises:
        CxrnetError: it failed.
    """
    one = Measurement(job)
    one.run(log)
    if one.failed is not None:
        raise CxrnetError(f"{job.name}: {one.failed}")
    return one.repeats[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
