"""A benchmark from configuration to figures: the order of the steps.

machine -> for each group: images, jobs in turn, ratios -> JSON, figures, console
"""

import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich import get_console

from cxrnet.benchmarking.figures import draw
from cxrnet.benchmarking.groups.data import data
from cxrnet.benchmarking.groups.frozen import frozen
from cxrnet.benchmarking.groups.growth import growth
from cxrnet.benchmarking.groups.predict import predict
from cxrnet.benchmarking.groups.startup import startup
from cxrnet.benchmarking.groups.train import train
from cxrnet.benchmarking.jobs import Job, Numbers, run_job
from cxrnet.benchmarking.measuring import Measured, Table, measure, rounds_of
from cxrnet.benchmarking.overrides import check_overrides
from cxrnet.benchmarking.plan import Group, Plan, check_plan
from cxrnet.benchmarking.ratios import over_rounds
from cxrnet.benchmarking.results import GroupResult, write_results
from cxrnet.benchmarking.saying import say_group, say_machine
from cxrnet.cli.run_folder import refuse_used, say_places, shown
from cxrnet.core import console
from cxrnet.core.config import Config, plain_config
from cxrnet.core.process import signals_raise
from cxrnet.errors import CxrnetError

GROUPS: dict[str, Callable[[Plan], Group]] = {
    "frozen": frozen,
    "train": train,
    "data": data,
    "predict": predict,
    "startup": startup,
    "growth": growth,
}
RESULTS = "benchmark.json"


def run_benchmarks(config: DictConfig, folder: Path, command: Sequence[str]) -> None:
    """Measure groups one after the other; what was measured is on disk after each of them, or when one is stopped.

    Args:
        config: as composed from ``conf/benchmark.yaml``.
        folder: where everything is written; refused if it holds a benchmark already.
        command: that is run.

    Raises:
        CxrnetError: a mistake in the configuration, or jobs that failed; the others' results are written.
    """
    refuse_used(folder, RESULTS, "a benchmark")
    plain = plain_config(config)
    names = check_plan(plain, list(GROUPS))
    check_overrides(plain, names)
    folder = folder.resolve()
    console.log_to(folder)
    machine = _do(Job("machine", "machine:facts", {"device": plain["device"]}), folder)
    say_machine(machine)
    drawn = Path(plain["outputs"]).resolve() / "benchmarks" / "images"
    weights = _weights(plain["model"], plain["size"], folder) if "frozen" in names else "none"
    plan = Plan(plain, machine["device"], drawn, folder / "scratch", weights)
    about = {"command": shlex.join(command), "machine": machine, "weights": weights, "config": plain}
    results: dict[str, GroupResult] = {}
    try:
        with signals_raise():
            for name in names:
                group = _prepared(GROUPS[name], plan, folder)
                measured = [Measured(job) for job in group.jobs]
                try:
                    measure(group.title, measured, group.repeats or plain["repeats"], folder / "jobs.log")
                finally:
                    ratios = over_rounds([group.ratios(each) for each in rounds_of(measured) or [Table({})]])
                    results[name] = GroupResult(group.title, group.numbers, measured, ratios)
                    write_results(results, about, folder / RESULTS)
                shutil.rmtree(plan.scratch)
                draw(results[name], folder / f"{name}.png")
                say_group(results[name])
    finally:
        shutil.rmtree(plan.scratch, ignore_errors=True)
    say_places({"numbers": str(shown(folder) / RESULTS), "everything": str(shown(folder))})
    if failed := [f"'{one.job.name}' ({one.failed})" for result in results.values() for one in result.failed]:
        raise CxrnetError(f"benchmark: failed: {', '.join(failed)}; see '{shown(folder) / 'jobs.log'}'")


def _prepared(make: Callable[[Plan], Group], plan: Plan, folder: Path) -> Group:
    plan.scratch.mkdir(exist_ok=True)
    with get_console().status("drawing images"):
        group = make(plan)
    for job in group.before:
        _do(job, folder)
    return group


def _weights(model: Config, size: Sequence[int], folder: Path) -> str:
    """What is to be asked for; weights that can't be had are asked for once, and not in every job that is timed."""
    numbers = _do(Job("weights", "own:find_weights", {**model, "size": size}), folder)
    if numbers["origin"] == "random":
        console.warn(f"random weights, so that no accuracy tells anything: {numbers['detail']}")
        return "none"
    console.say("weights", numbers["detail"])
    return str(model["weights"])


def _do(job: Job, folder: Path) -> Numbers:
    """A job without which nothing can be measured."""
    answer = run_job(job, folder / "jobs.log")
    if answer.numbers is None:
        raise CxrnetError(f"benchmark: '{job.name}' can't be done: {answer.missing or answer.failed}")
    return answer.numbers
