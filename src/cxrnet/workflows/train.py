"""One experiment from configuration to results: the order of the steps.

data -> one run, or one for each fold and seed -> what is said in the end
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.run_folder import shown
from cxrnet.core import console
from cxrnet.core.config import Config, flat, read_config, write_config
from cxrnet.core.machine import machine_told
from cxrnet.core.process import is_main_process
from cxrnet.evaluation.threshold_selection import check_policy
from cxrnet.tracking.run import track
from cxrnet.tracking.store import tracking_uri
from cxrnet.tracking.sync import recorded_uri
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.workflows.build import check_trainer, make_data
from cxrnet.workflows.cross_validation import run_repeats
from cxrnet.workflows.describe import say_results
from cxrnet.workflows.folds_and_seeds import Repeat
from cxrnet.workflows.single_run import run_once, state_data


def run_experiment(
    config: DictConfig,
    plain: Config,
    repeats: Sequence[Repeat],
    folder: Path,
    name: str,
    command: Sequence[str],
    resumed: bool,
) -> float:
    """Train, evaluate and report.

    Args:
        config: as composed from ``conf/train.yaml``.
        plain: the same, and whether a run is resumed, from :func:`cxrnet.workflows.start.start`.
        repeats: from :func:`cxrnet.workflows.folds_and_seeds.check_repeats`.
        folder: of this run.
        name: of the run in MLflow.
        command: what makes this run from its beginning, for the report and for a resumption.
        resumed: the folder's run goes on.

    Returns:
        The monitored validation metric of the kept weights, for sweepers; over folds and seeds its mean. Never a test
        result: a sweep that sees the test set tunes on it.

    Raises:
        CxrnetError: a mistake in the configuration or the data.
    """
    check_trainer(plain, folder)
    tracking, outputs = plain["tracking"], Path(plain["outputs"])
    uri = tracking_uri(tracking["uri"], outputs) if tracking["enabled"] else None
    if uri and resumed and (read_config(folder) or plain)["tracking"]["uri"] == tracking["uri"]:
        uri = recorded_uri(folder, uri)  # which a relative path, or another environment, does not change
    with track(folder, uri, tracking["experiment"], outputs, name, command, resume=resumed) as run, machine_told():
        run.log_params(flat(plain))
        if is_main_process():
            run.log_artifact(write_config(folder, plain))
        console.heading("Data")
        data = make_data(plain["data"])
        check_policy(plain["operating_points"] or {}, data.classes)
        if repeats:
            outcome = run_repeats(repeats, config, data, run, folder, name, command, uri)
        else:
            warnings = state_data(data, plain, run, folder, resumed)
            outcome = run_once(plain, data, warnings, run, folder, command, resumed)
    if outcome.results is not None:
        say_results(outcome.results, outcome.warnings, _places(folder, run, uri))
    return outcome.score


def _places(folder: Path, run: TrackedRun, uri: str | None) -> dict[str, str]:
    files = {"report": "report.html", "bundle": "bundle", "spread": "repeats.csv"}
    places = {label: str(shown(folder) / file) for label, file in files.items() if (folder / file).exists()}
    places["everything"] = str(shown(folder))
    if uri is None:
        return {**places, "MLflow": "not tracked"}
    address = f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri.startswith("sqlite") else uri
    return {**places, "MLflow": f"run {run.run_id}", "MLflow UI": address}
