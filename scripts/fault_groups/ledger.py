"""Content of an MLflow run, read with its client, and what is missing or doubled against an undisturbed one."""

import hashlib
import logging
import os
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SQLITE = "sqlite:///"
SAME_FILES = ("tables/metrics.json", "data/predictions.parquet")
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Ledger:
    """Content of an MLflow experiment with one run.

    Attributes:
        statuses: of its runs.
        points: how often each ``(metric, step, value)`` is there, the value as text, for NaN is not itself.
        params: names and values; of the first run, as all that follows.
        tags: names.
        datasets: logged as inputs.
        files: names of the artifacts, and the SHA-256 of those in :data:`SAME_FILES`.
        models: SHA-256 of the weights of each logged model; empty text where the model has none.
        linked: whether the tag ``cxrnet.model_uri`` names one of them.
    """

    statuses: list[str]
    points: "Counter[tuple[str, int, str]]"
    params: dict[str, str]
    tags: set[str]
    datasets: int
    files: dict[str, str]
    models: list[str]
    linked: bool

    def lost_against(self, whole: "Ledger") -> list[str]:
        """List what is missing or doubled here, where ``whole`` is of an undisturbed run.

        A resumed run may have more tags and files; whatever the other one has must be here too, and the same.
        """
        if not self.statuses:
            return ["no run in MLflow"]
        lost = [f"{len(self.statuses)} MLflow runs"] if len(self.statuses) > 1 else []
        lost += [f"status {status}" for status in sorted(set(self.statuses) - {"FINISHED"})]
        if not self.points:
            return [*lost, "no metrics"]
        if missing := whole.points.keys() - self.points.keys():
            lost.append(f"{len(missing)} of {len(whole.points)} metric values missing")
        if doubled := (self._steps() - whole._steps()).total():
            lost.append(f"{doubled} metric values twice")
        lost += _missing("parameters", whole.params.keys() - self.params.keys())
        lost += _missing("tags", whole.tags - self.tags)
        lost += _missing("artifacts", whole.files.keys() - self.files.keys())
        there = [name for name in SAME_FILES if name in self.files]
        lost += [f"another {name} in MLflow" for name in there if self.files[name] != whole.files[name]]
        if self.datasets != whole.datasets:
            lost.append(f"{self.datasets} data sets")
        if len(self.models) != 1:
            lost.append(f"{len(self.models)} logged models")
        elif self.models != whole.models:
            lost.append("another logged model")
        if self.models and not self.linked:
            lost.append("no link to the logged model")
        return lost

    def _steps(self) -> "Counter[tuple[str, int]]":
        """Count the values of each metric at each step."""
        steps: Counter[tuple[str, int]] = Counter()
        for (key, step, _), often in self.points.items():
            steps[key, step] += often
        return steps


NOTHING = Ledger([], Counter(), {}, set(), 0, {}, [], False)


def read_ledger(uri: str, experiment: str = "cxrnet") -> Ledger:
    """Read an experiment from a store, every run, deleted ones too.

    Args:
        uri: ``sqlite:///<file>`` or ``http://...``.
        experiment: its name.
    """
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():  # asking would make it
        return NOTHING
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with _one_at_a_time:
        import mlflow
        from mlflow import MlflowClient
        from mlflow.entities import ViewType

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(uri)  # what downloads artifacts looks here whatever the client says
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        runs = client.search_runs([found.experiment_id], run_view_type=ViewType.ALL) if found else []
        if not found or not runs:
            return NOTHING
        first = runs[-1]  # the newest comes first
        points: Counter[tuple[str, int, str]] = Counter()
        for run in runs:
            for key in run.data.metrics:
                history = client.get_metric_history(run.info.run_id, key)
                points.update((key, point.step, str(point.value)) for point in history)
        models = client.search_logged_models([found.experiment_id])
        addresses = {f"models:/{model.model_id}" for model in models}
        with TemporaryDirectory() as scratch:
            files = _files(client, first, Path(scratch))
            weights = [_weights(model.artifact_location, uri) for model in models]
        return Ledger(
            statuses=sorted(str(run.info.status) for run in runs),
            points=points,
            params=dict(first.data.params),
            tags=set(first.data.tags),
            datasets=len(first.inputs.dataset_inputs) if first.inputs else 0,
            files=files,
            models=weights,
            linked=first.data.tags.get("cxrnet.model_uri") in addresses,
        )


def _missing(what: str, names: set[str]) -> list[str]:
    some = ", ".join(sorted(names)[:2]) + (", ..." if len(names) > 2 else "")
    return [f"{len(names)} {what} missing ({some})"] if names else []


def _files(client: "MlflowClient", run: "Run", scratch: Path) -> dict[str, str]:
    run_id = run.info.run_id
    folders = [file.path for file in client.list_artifacts(run_id) if file.is_dir]
    names = {file.path: "" for folder in (None, *folders) for file in client.list_artifacts(run_id, folder)}
    for name in SAME_FILES:
        if name in names:
            names[name] = _sha256(Path(client.download_artifacts(run_id, name, str(scratch))))
    return names


def _weights(place: str, uri: str) -> str:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with TemporaryDirectory() as scratch:
        try:
            model = Path(download_artifacts(artifact_uri=place, dst_path=scratch, tracking_uri=uri))
        except (MlflowException, OSError):
            return ""
        return next((_sha256(file) for file in sorted(model.rglob("model.safetensors"))), "")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
