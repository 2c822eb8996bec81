"""Stores for the tests of tracking: a SQLite file, and an MLflow server of our own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from cxrnet.tracking.store import ENVIRONMENT, open_experiment, tracking_uri


@pytest.fixture(autouse=True)
def _no_tracking_address(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def outputs(tmp_path_factory) -> Path:
    """An outputs folder (with a space in its name) whose database exists: to make one takes seconds."""
    folder = tmp_path_factory.mktemp("all outputs")
    open_experiment(f"sqlite:///{folder}/mlflow.db", "first", folder)
    return folder


@pytest.fixture
def uri(outputs) -> str:
    return tracking_uri(None, outputs)


@pytest.fixture
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


@pytest.fixture
def tracked(uri, outputs, tmp_path):
    """``track`` with a store, an experiment and a folder."""
    from cxrnet.tracking.run import track

    def start(**settings):
        return track(**{"folder": tmp_path / "run", "uri": uri, "experiment": "runs", "outputs": outputs, **settings})

    return start


@pytest.fixture
def artifact(client, tmp_path):
    """Reads a text that was logged as an artifact."""

    def read(run_id: str, name: str) -> str:
        return Path(client.download_artifacts(run_id, name, str(tmp_path))).read_text()

    return read


@dataclass(frozen=True)
class Server:
    """``mlflow server`` on a free port of this machine."""

    uri: str
    process: subprocess.Popen

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)  # the server starts workers of its own


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running server; only the last test of a module may end it."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts"]
    command = [sys.executable, "-m", "mlflow", "server", *address, *store]
    # without its job runner the server starts in half the time
    environment = {**os.environ, **ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
    server = Server(f"http://127.0.0.1:{port}", process)
    _wait_for(server.uri, folder / "server.log")
    yield server
    with contextlib.suppress(ProcessLookupError):
        server.signal(signal.SIGKILL)
    process.wait()


def _wait_for(uri: str, log: Path) -> None:
    for _ in range(480):
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"the MLflow server did not start: {log.read_text()[-2000:]}")
