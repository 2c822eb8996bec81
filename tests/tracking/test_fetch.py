import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from cxrnet.errors import CxrnetError
from cxrnet.models.bundle import Bundle, load_bundle, save_bundle
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig
from cxrnet.tracking.read import fetch_run
from cxrnet.tracking.run import track
from cxrnet.tracking.tracker import TrackedRun

HALF = (0.5,) * 3


def _make(run: TrackedRun, folder: Path) -> None:
    """Log a bundle and a table."""
    torch.manual_seed(0)
    config = NetworkConfig(
        "custom_cnn", ("a", "b"), (64, 64), HALF, HALF, "average", None, (), "relu", False, 0.0, 0.0, "softmax"
    )
    save_bundle(Bundle(Network(config).eval(), "pad", 1.0, {}, "0" * 64, {}, {}), folder / "bundle")
    pd.DataFrame({"a": [1]}).to_parquet(folder / "manifest.parquet")
    run.log_results(folder)
    run.log_bundle(folder / "bundle", ("a", "b"))


@pytest.fixture
def finished(tracked, tmp_path) -> str:
    """A run with a bundle and a table."""
    with tracked() as run:
        _make(run, tmp_path / "run")
    return run.run_id


def test_a_run_that_is_on_this_machine_is_its_own_folder(finished, uri, tmp_path):
    assert fetch_run(uri, finished, tmp_path / "scratch") == tmp_path / "run"
    assert not (tmp_path / "scratch").exists()


def test_a_run_that_is_gone_comes_from_mlflow(finished, uri, tmp_path):
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "scratch").mkdir()
    folder = fetch_run(uri, finished, tmp_path / "scratch")
    assert folder == tmp_path / "scratch"
    assert load_bundle(folder / "bundle").resize == "pad"
    assert len(pd.read_parquet(folder / "manifest.parquet")) == 1
    assert not (folder / "predictions.parquet").exists()


@pytest.fixture
def on_a_server(server, tmp_path) -> str:
    """The same run, logged to a server over HTTP."""
    with track(tmp_path / "run", server.uri, "runs", tmp_path) as run:
        _make(run, tmp_path / "run")
    return run.run_id


def test_a_run_that_is_gone_comes_from_a_server(on_a_server, server, tmp_path):
    wrote = (tmp_path / "run" / "bundle" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "scratch").mkdir()
    folder = fetch_run(server.uri, on_a_server, tmp_path / "scratch")
    assert load_bundle(folder / "bundle").classes == ("a", "b")
    assert (folder / "bundle" / "model.safetensors").read_bytes() == wrote
    assert pd.read_parquet(folder / "manifest.parquet")["a"].tolist() == [1]


def test_a_run_without_a_bundle_and_a_run_that_is_none(tracked, uri, tmp_path):
    with tracked() as run:
        pass
    with pytest.raises(CxrnetError, match=f"bundle: MLflow run '{run.run_id}' has no bundle; give a run of cxrnet"):
        fetch_run(uri, run.run_id, tmp_path / "scratch")
    with pytest.raises(CxrnetError, match=r"cannot be read: .*not found"):
        fetch_run(uri, "0" * 32, tmp_path / "scratch")
