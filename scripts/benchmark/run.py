"""How fast cxrnet is on this machine, beside what one would do otherwise and what the machine can do.

    python scripts/benchmark/run.py                           everything; takes hours on a few cores
    python scripts/benchmark/run.py only=[frozen,train]       some groups
    python scripts/benchmark/run.py only=frozen data.root=my_xrays keras_python=<python that has TensorFlow>
    python scripts/benchmark/run.py only=train batch_size=256 train.steps=100 models=[resnet50,mobilenet_v2,vgg16]

Every number goes into <outputs>/benchmarks/<time>/benchmark.json, and the tables into benchmark.md beside it.
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
from jobs import Job, Numbers
from omegaconf import DictConfig, OmegaConf
from options import CONFIG, read_options
from results import UNITS, Group, number_text, page, plot_growth, show
from rich import get_console

from cxrnet.core import console
from cxrnet.core.atomic import write_json, write_text
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
    print(f"\nnumbers: {folder / 'benchmark.json'}; as tables: {folder / 'benchmark.md'}")
    return 0


def benchmark(options: DictConfig, folder: Path, command: str) -> None:
    """Measure groups one after the other; what was measured is on disk after each job.

    Raises:
        CxrnetError: the user's words won't do, or jobs failed; the others' results are written.
    """
    log, scratch, drawn = folder / "jobs.log", folder / "scratch", folder.parent / "images"
    machine = _do(Job("machine", "cxrnet_jobs:machine", {"device": options.device}), log)
    cores = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB"
    accelerator = machine["accelerator"] or machine["device"]
    described = f"{cores}, {accelerator}, torch {machine['versions']['torch']}"
    console.say("machine", described)
    weights = _find_weights(options, log) if "frozen" in options.only else "none"
    plan = Plan(options, machine["device"], drawn, scratch, weights)
    if options.overrides:  # refused before hours are spent
        _do(Job("overrides", "cxrnet_jobs:check", {"tasks": plan.tasks_with_overrides()}), log)
    about = {"command": command, "machine": machine, "weights": weights, "config": OmegaConf.to_object(options)}
    results: dict[str, dict[str, Any]] = {}
    failed: list[Job] = []
    try:
        for name in options.only:
            scratch.mkdir()
            group = GROUPS[name](plan)
            for job in group.before:
                _do(job, log)
            for _ in measure(group, group.rounds or options.repeats, log):
                results[name] = group.to_dict()
                write_json(folder / "benchmark.json", {**about, "groups": results})
                write_text(folder / "benchmark.md", page(results.values(), described, command))
            shutil.rmtree(scratch)
            show(results[name])
            failed += [job for job in group.jobs if job.failed is not None]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if "growth" in results:
        plot_growth(results["growth"], folder / "growth.png")
    if failed:
        reasons = ", ".join(f"'{job.name}' ({job.failed})" for job in failed)
        raise CxrnetError(f"benchmark: failed: {reasons}; see '{log}'")


def measure(group: Group, rounds: int, log: Path) -> Iterator[None]:
    """Do every job once, then every job a second time, and so on; print each as it ends, after yielding.

    A job that is missing or failed isn't tried again.
    """
    for number in range(1, rounds + 1):
        for job in group.jobs:
            if job.failed is not None or (job.missing is not None and number > 1):
                continue
            begin = time.monotonic()
            if job.missing is None:
                with get_console().status(f"{group.title}, round {number} of {rounds}: {job.name}"):
                    job.run(log)
            yield
            if job.failed is not None or job.missing is not None:
                came = f"failed, {job.failed}" if job.failed is not None else f"missing, {job.missing}"
            else:
                shown = next(name for name in group.numbers if name in job.repeats[-1])
                came = f"{number_text(job.repeats[-1][shown])} {UNITS[shown]}"
            console.say(f"round {number}/{rounds}", f"{job.name}: {came} ({time.monotonic() - begin:.0f} s)")


def _find_weights(options: DictConfig, log: Path) -> str:
    """Ask for the weights once, and not in every job that is timed; ``none`` where they can't be had."""
    found = _do(Job("weights", "cxrnet_jobs:find_weights", {**options.model, "size": list(options.size)}), log)
    if found["origin"] != "random":
        console.say("weights", found["detail"])
        return str(options.model.weights)
    console.warn(f"random weights, so that no accuracy tells anything: {found['detail']}")
    return "none"


def _do(job: Job, log: Path) -> Numbers:
    """Do a job without which nothing can be measured.

    Raises:
        CxrnetError: it failed.
    """
    job.run(log)
    if job.failed is not None:
        raise CxrnetError(f"{job.name}: {job.failed}")
    return job.repeats[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
