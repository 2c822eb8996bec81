"""Compare finished runs: runs -> names -> comparison -> files -> MLflow -> console."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import isnan
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich import get_console

from cxrnet.cli.run_folder import refuse_used, say_places, shown
from cxrnet.core import console
from cxrnet.core.config import Config, flat, plain_config
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.comparison import ComparisonSettings, compare
from cxrnet.reporting.comparison import ComparedRuns, say_comparison, verdict, warnings_of, write_comparison
from cxrnet.tracking.names import job_names
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.workflows.finished_run import FinishedRun, find_runs, read_run
from cxrnet.workflows.run_context import store_of, tracked
from cxrnet.workflows.settings import Compare

PAGE = "comparison.html"
_LONGEST_NAME = 50
_LONGEST_LABEL = 80  # two of them and a metric stand in a name, for which MLflow has 250 characters


def compare_runs(config: DictConfig, folder: Path, command: Sequence[str]) -> None:
    """Find runs, compare them, write what was found, and tell MLflow.

    Raises:
        CxrnetError: a mistake in the configuration, runs that can't be compared, or a folder that holds a comparison.
    """
    refuse_used(folder, PAGE, "a comparison")
    plain = plain_config(config)
    console.log_to(folder)
    console.heading("Runs")
    with get_console().status("reading runs"):
        runs = named(find_runs(plain, store_of(plain)))
    for name, run in runs.items():
        console.say("run", f"{name}: {run.place}")
    if any(run.facts.get("split") == "val" for run in runs.values()):
        console.warn("no test images: these are validation images, on which each run chose its weights")
    check_same_files(runs)
    compared = _compare(runs, plain)
    # Beside the runs, where they are of one experiment.
    with tracked(plain, folder, "comparison", command, plain["mlflow_experiment"]) as own:
        with get_console().status("drawing"):
            files = write_comparison(compared, folder)
        own.log_params(flat(plain) | {f"place.{rank}": run for rank, run in enumerate(compared.comparison.runs, 1)})
        _log(own, compared, [run.run_id for run in runs.values() if run.run_id is not None])
        for file in files:
            own.log_artifact(file)
    say_comparison(compared)
    mlflow = f"run {own.run_id}" if own.run_id else "not tracked"
    say_places({"page": str(shown(folder) / PAGE), "everything": str(shown(folder)), "MLflow": mlflow})


def _compare(runs: Mapping[str, FinishedRun], config: Config) -> ComparedRuns:
    settings = ComparisonSettings(**{field.name: config[field.name] for field in fields(ComparisonSettings)})
    with get_console().status("comparing"):
        comparison = compare({name: run.table for name, run in runs.items()}, settings)
    leaked = {name: run.leaked for name, run in runs.items() if run.leaked is not None}
    return ComparedRuns(comparison, {name: run.facts for name, run in runs.items()}, leaked)


def _log(own: TrackedRun, compared: ComparedRuns, ids: Sequence[str]) -> None:
    """Log metrics and p values, and point each run that was compared to the comparison.

    The metrics of the leaderboard have the ends of their intervals, ``accuracy/<run>``,
    ``accuracy/ci_low/<run>``; the p of each pair of runs is also corrected by Holm, ``p_holm/accuracy/<run> against
    <run>``.
    """
    comparison = compared.comparison
    own.set_tags({"cxrnet.compares": ", ".join(ids), "cxrnet.best_run": comparison.runs[0]})
    # The description that MLflow's page of a run shows.
    own.set_tags({"mlflow.note.content": "\n\n".join([verdict(compared), *warnings_of(compared)])})
    labels = labels_of(comparison.runs)
    metrics = comparison.metrics[comparison.metrics["metric"].isin(list(comparison.shown))]
    values = {
        f"{row['metric']}{end}/{labels[row['run']]}": row[column]
        for row in metrics.to_dict("records")
        for column, end in (("value", ""), ("low", "/ci_low"), ("high", "/ci_high"))
    }
    values |= {
        f"{p}/{test['metric']}/{labels[test['a']]} against {labels[test['b']]}": test[p]
        for test in comparison.tests.to_dict("records")
        for p in ("p", "p_holm")
    }
    own.log_metrics({name: value for name, value in values.items() if not isnan(value)}, 0)
    for run_id in ids:
        own.set_tags({"cxrnet.compared_in": own.run_id}, of=run_id)


def labels_of(runs: Sequence[str]) -> dict[str, str]:
    """Name each run as MLflow takes it in the name of a metric; the same names get their place."""
    short = [re.sub(r"[^\w.\- ]", "_", run)[:_LONGEST_LABEL] for run in runs]
    return {
        run: label if short.count(label) == 1 else f"{label} {place}"
        for place, (run, label) in enumerate(zip(runs, short, strict=True), 1)
    }


def named(runs: Sequence[FinishedRun]) -> dict[str, FinishedRun]:
    """Name runs by the overrides that not all of them have, else by their own names, else by their places.

    Raises:
        CxrnetError: a run is there twice.
    """
    times = Counter(run.run_id or str(Path(run.place).resolve()) for run in runs)
    if twice := [run for run, count in times.items() if count > 1]:
        raise CxrnetError(f"runs: '{twice[0]}' is given more than once; give each run once")
    started = [run.overrides for run in runs if run.overrides is not None]
    by_overrides = iter(job_names(started) if len(started) > 1 else [""] * len(started))
    names = []
    for run in runs:
        name = "" if run.overrides is None else next(by_overrides)
        # The number of a job tells nothing, and half a command line is no name.
        names.append(run.name if not name or name.startswith("job ") or len(name) > _LONGEST_NAME else name)
    return {
        name if names.count(name) == 1 else f"{name} ({run.place})": run for name, run in zip(names, runs, strict=True)
    }


def compare_jobs(folders: Sequence[Path], into: Path) -> tuple[list[Path], int]:
    """Compare jobs of a sweep as ``cxrnet.compare`` does by default: the first, and those tested on the same images.

    Args:
        folders: folders of finished runs, the best first.
        into: folder of the comparison.

    Returns:
        The files that were written, none where the first run stands alone, and the number of jobs in them.

    Raises:
        CxrnetError: a run can't be read or compared.
    """
    found = [read_run(folder, None) for folder in folders]
    runs = [run for run in found if set(run.table["image_id"]) == set(found[0].table["image_id"])]
    if len(runs) < 2:
        return [], len(runs)
    names = named(runs)
    check_same_files(names)
    return write_comparison(_compare(names, plain_config(OmegaConf.structured(Compare))), into), len(runs)


def check_same_files(runs: Mapping[str, FinishedRun]) -> None:
    """Check that images of the same name are the same images, as far as the runs' manifests tell.

    Raises:
        CxrnetError: they aren't.
    """
    known = [(name, run.hashes) for name, run in runs.items() if len(run.hashes)]
    for name, hashes in known[1:]:
        first, reference = known[0]
        shared = hashes.index.intersection(reference.index)
        different = shared[(hashes[shared] != reference[shared]).to_numpy(bool)]
        if len(different):
            raise CxrnetError(
                f"runs: '{name}' and '{first}' are tested on different data: {len(different)} of {len(shared)} images "
                f"have the same image_id and other files (as '{different[0]}'); compare runs on the same data"
            )
