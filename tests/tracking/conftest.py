"""Stores for the tests of tracking: a SQLite file, and an MLflow server of our own."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cxrnet.tracking.store import ENVIRONMENT, find_experiment, opened, tracking_uri


@pytest.fixture(autouse=True)
def _no_tracking_address(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def outputs(tmp_path_factory, empty_store) -> Path:
    """An outputs folder, with a space in its name, that has an experiment."""
    folder = tmp_path_factory.mktemp("all outputs")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    with opened(f"sqlite:///{folder}/mlflow.db") as client:
        find_experiment(client, "first", folder)
    return folder


@pytest.fixture
def uri(outputs) -> str:
    return tracking_uri(None, outputs)


@pytest.fixture
def open_experiment(uri, outputs):
    """Finds or creates an experiment in a store, and the store itself."""

    def make(name: str, uri: str = uri, outputs: Path = outputs) -> str:
        with opened(uri) as client:
            return find_experiment(client, name, outputs)

    return make


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


@pytest.fixture(scope="session")
def servers():
    """The servers of the session; they end with it."""
    running: list[Server] = []
    yield running
    for server in running:
        with contextlib.suppress(ProcessLookupError):
            server.signal(signal.SIGKILL)
        server.process.wait()


@pytest.fixture
def server(servers, tmp_path_factory, empty_store):
    """A running server: that of the session, or another one where a test has ended it."""
    if servers and servers[-1].process.poll() is None:
        return servers[-1]
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty_store, folder / "server.db")
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
    servers.append(Server(f"http://127.0.0.1:{port}", process))
    _wait_for(servers[-1].uri, folder / "server.log")
    return servers[-1]


def _wait_for(uri: str, log: Path) -> None:
    for _ in range(480):
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"the MLflow server did not start: {log.read_text()[-2000:]}")


class Proxy:
    """Stands before a server. ``fault(method, path)`` is asked of each request.

    It gives ``None`` (all is well), ``500``, ``"drop"`` (the server does it, its answer is lost) or seconds of delay.
    """

    def __init__(self, server: str) -> None:
        self.fault = lambda method, path: None
        self.asked: list[str] = []
        proxy, target = self, urlsplit(server)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy.asked.append(f"{self.command} {self.path}")
                fault = proxy.fault(self.command, self.path)
                if fault == 500:
                    self._answer(500, {}, b"out of order")
                    return
                upstream = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                content = answer.read()
                if fault == "drop":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if isinstance(fault, float):
                    time.sleep(fault)
                self._answer(answer.status, dict(answer.getheaders()), content)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._listening.server_port}"
        threading.Thread(target=self._listening.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown()
        self._listening.server_close()


@pytest.fixture
def proxy(server):
    """A proxy before the real server, which does what a test tells it."""
    before = Proxy(server.uri)
    yield before
    before.close()


@pytest.fixture
def make_bundle():
    """Writes a bundle into a folder, and returns where it lies."""
    import torch

    from cxrnet.models.bundle import Bundle, save_bundle
    from cxrnet.models.network import Network
    from cxrnet.models.settings import NetworkConfig

    def make(folder: Path, seed: int = 0, classes: tuple[str, ...] = ("a", "b")) -> Path:
        torch.manual_seed(seed)
        config = NetworkConfig(backbone="custom_cnn", classes=classes, size=(64, 64), dropout=0.0)
        save_bundle(Bundle(Network(config).eval(), "pad", 1.0, {}, "0" * 64, {}, {}), folder / "bundle")
        return folder / "bundle"

    return make
