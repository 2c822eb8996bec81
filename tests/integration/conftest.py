"""Commands of cxrnet as a user types them."""

import contextlib
import importlib
import io
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra


def call_python(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder on one thread, without the MLflow address of whoever runs the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment["OMP_NUM_THREADS"] = "1"  # two trainings side by side would hold each other up
    return subprocess.run(
        [sys.executable, *line], cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )


def call_command(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``cxrnet.<name>`` in this process, in a folder, as ``python -m`` would; leave the process as it was."""
    root, out, err = logging.getLogger(), io.StringIO(), io.StringIO()
    handlers, level, status = list(root.handlers), root.level, 0
    main = importlib.import_module(f"cxrnet.{name}").main
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr(sys, "argv", [name, *arguments])
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                status = int(end.code or 0)
            finally:
                GlobalHydra.instance().clear()
    logging.captureWarnings(False)
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    return subprocess.CompletedProcess([name, *arguments], status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def make_place(tmp_path_factory, empty_store) -> Callable[[str], Path]:
    """Makes a folder to work in, with an MLflow database of no runs in its outputs."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "outputs").mkdir()
        shutil.copyfile(empty_store, folder / "outputs" / "mlflow.db")
        return folder

    return make


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``command(folder, name, *arguments)``: the function above."""
    return call_command


@pytest.fixture(scope="session")
def call() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``call(folder, *line)``: the function above, for tests, which can't import from here."""
    return call_python


@pytest.fixture(scope="session")
def train() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``train(folder, *arguments)`` runs ``python -m cxrnet.train`` in the folder."""
    return lambda folder, *arguments: call_python(folder, "-m", "cxrnet.train", *arguments)


@pytest.fixture(scope="session")
def query() -> Callable[..., list[tuple]]:
    """``query(folder, text)`` asks the MLflow database of the runs that were made in the folder."""

    def ask(folder: Path, text: str) -> list[tuple]:
        with sqlite3.connect(folder / "outputs" / "mlflow.db") as database:
            return database.execute(text).fetchall()

    return ask
