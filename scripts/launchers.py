"""Run a sweep of four jobs at once with each launcher on each store, and count what MLflow has lost.

    python scripts/launchers.py [out=launchers.md]

Four small runs on phantoms go to a SQLite file and to an ``mlflow server``, one after the other and by each launcher at
once. Each child run must have what the same job has where nothing runs beside it: status, metric values at each step,
parameters, tags, artifacts, one logged model. The table stands in docs/sweeps.md; the exit status is 1 where anything
was lost.
"""

import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fault_groups.bench import environment
from fault_groups.server import mlflow_server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LAUNCHERS = {
    "one after the other": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4"],
    "submitit_local": ["hydra/launcher=submitit_local"],
    "ray": ["hydra/launcher=ray", "hydra.launcher.init.num_cpus=4"],
}
SMALL = ["model=custom_cnn", "trainer=debug", "data.size=[64,64]", "data.manifest.images=96"]
JOBS = ["seed=0,1", "schedule.scratch.lr=1e-3,1e-4"]
OTHER = ("mlflow.note", "cxrnet.key", "cxrnet.run_dir", "cxrnet.model_uri", "mlflow.logged", "mlflow.parent")
"""Tags whose values differ from run to run."""
OWN = ("tracking", "outputs")  # parameters that differ from sweep to sweep, as does the folder of the cache


def main(words: list[str]) -> int:
    """Run the sweeps and print the table; return the exit status."""
    if set(words) & {"--help", "-h"}:
        print(__doc__)
        return 0
    out = next((Path(word.removeprefix("out=")) for word in words if word.startswith("out=")), None)
    rows = ["| store | launcher | jobs | lost |", "| --- | --- | --- | --- |"]
    lost = 0
    with TemporaryDirectory(prefix="cxrnet-launchers-") as scratch:
        for store in ("SQLite", "mlflow server"):
            place = Path(scratch) / store.replace(" ", "-")
            place.mkdir()
            served = mlflow_server(place) if store != "SQLite" else nullcontext("")
            with served as address:
                whole: dict[str, dict[str, Any]] = {}
                for name, launcher in LAUNCHERS.items():
                    found = sweep(place, name, launcher, address)
                    whole = whole or found
                    missing = lost_against(found, whole)
                    lost += len(missing)
                    rows.append(f"| {store} | {name} | {len(found)} | {'; '.join(missing) or 'nothing'} |")
                    print(rows[-1], flush=True)
    page = "\n".join(rows) + "\n"
    if out:
        out.write_text(page, encoding="utf-8")
    return int(lost > 0)


def sweep(place: Path, name: str, launcher: list[str], address: str) -> dict[str, dict[str, Any]]:
    """Run a sweep in an experiment of its own; return what MLflow has of each job."""
    words = ["-m", *SMALL, *JOBS, *launcher, f"tracking.experiment={name}", f"outputs=outputs/{name.replace(' ', '-')}"]
    uri = address or f"sqlite:///{place}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-m", "cxrnet.train", *words, f"tracking.uri={uri}"],
        cwd=place, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return {}
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    logged = client.search_logged_models([experiment.experiment_id])
    models = Counter(str(model.source_run_id) for model in logged)
    children = {job_of(run): run for run in runs if "mlflow.parentRunId" in run.data.tags}
    if len(children) < sum("mlflow.parentRunId" in run.data.tags for run in runs):
        children["twice"] = runs[0]
    return {job: content(client, run, models) for job, run in children.items()}


def job_of(run: "Run") -> str:
    """Return what tells a job from the others of its sweep."""
    keys = tuple(f"{word.partition('=')[0]}=" for word in JOBS)
    words = run.data.tags.get("cxrnet.overrides", run.info.run_name).split()
    return " ".join(word for word in words if word.startswith(keys))


def content(client: "MlflowClient", run: "Run", models: "Counter[str]") -> dict[str, Any]:
    """Collect what MLflow has of a run, as far as two runs of the same job share it."""
    points = Counter(
        (key, point.step) for key in run.data.metrics for point in client.get_metric_history(run.info.run_id, key)
    )
    folders = [file.path for file in client.list_artifacts(run.info.run_id) if file.is_dir]
    files = {file.path for folder in folders for file in client.list_artifacts(run.info.run_id, folder)}
    return {
        "status": run.info.status,
        "metric values": points,
        "metrics": {key: round(value, 6) for key, value in run.data.metrics.items() if "second" not in key},
        "parameters": {
            key: value for key, value in run.data.params.items() if not key.startswith(OWN) and "cache" not in key
        },
        "tags": {key for key in run.data.tags if not key.startswith(OTHER)},
        "artifacts": files,
        "logged models": models[run.info.run_id],
    }


def lost_against(found: dict[str, dict[str, Any]], whole: dict[str, dict[str, Any]]) -> list[str]:
    """Name what the jobs lack or have otherwise than where nothing ran beside them."""
    lost = [f"no run of {job}" for job in whole.keys() - found.keys()]
    lost += [f"another run: {job}" for job in found.keys() - whole.keys()]
    same = sorted(whole.keys() & found.keys())
    return lost + [
        f"{job}: {what}" for job in same for what, is_there in whole[job].items() if found[job][what] != is_there
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
