"""Commands of cxrnet as a user types them."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def call_python(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, without the MLflow address of whoever runs the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, *line], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


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
