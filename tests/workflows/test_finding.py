"""Where the runs of a comparison come from; MLflow stands in test_comparing.py."""

import numpy as np
import pandas as pd
import pytest

from cxrnet.core.atomic import write_table
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.workflows.compare import find_runs


@pytest.fixture
def sweep(tmp_path):
    """Three jobs: two have predictions, one of them with folds of its own; one has failed."""
    rows = pd.DataFrame({"image_id": ["a", "b"], "path": "x", "label": ["Covid", "Normal"], "split": "test"})
    rows = rows.assign(source="invented", patient_id=None)
    table = make_predictions(rows, ("Covid", "Normal"), np.eye(2, dtype=np.float32))
    for place in ("0_a", "1_b", "1_b/seed0_fold1of3", "no run"):
        write_table(table, tmp_path / place / "predictions.parquet")
    (tmp_path / "no run" / "predictions.parquet").unlink()
    (tmp_path / "2_c").mkdir()
    (tmp_path / "2_c" / "run.json").write_text("{}")
    return tmp_path


def found(uri: str | None = None, **config) -> list[str]:
    return [run.name for run in find_runs({"runs": None, "mlflow_experiment": None, "sweep": None, **config}, uri)]


def test_the_jobs_of_a_sweep_without_their_folds_and_without_what_failed(sweep, capsys):
    assert found(sweep=str(sweep)) == ["0_a", "1_b"]
    said = capsys.readouterr().out
    assert "2_c, which has no predictions" in said
    assert "no run" not in said


def test_folders_and_tables(sweep):
    assert found(runs=[str(sweep / "1_b"), str(sweep / "0_a" / "predictions.parquet")]) == ["1_b", "0_a"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, r"runs: nothing to compare; give one of runs=\[...\], experiment=<name> and sweep=<folder>"),
        ({"runs": ["a", "b"], "sweep": "c"}, "runs: too much to compare; give one of"),
        ({"runs": "a"}, r"runs: 'a' is no list; give runs=\[<one>,<another>\]"),
        ({"runs": []}, "runs: 0 runs with predictions found; a comparison needs at least two"),
        ({"sweep": "nowhere"}, "sweep: 'nowhere' is not a folder"),
        ({"runs": ["nowhere", "b"]}, "runs: 'nowhere' is neither a folder, a file nor an MLflow run id"),
        ({"runs": ["a" * 32, "b"]}, "is a run id, and tracking=none knows of none"),
        ({"mlflow_experiment": "e"}, "experiment: tracking=none knows of no experiments"),
    ],
)
def test_a_mistake_is_one_line(config, words):
    with pytest.raises(CxrnetError, match=words):
        found(**config)


def test_one_run_is_too_few(sweep):
    with pytest.raises(CxrnetError, match="runs: 1 run with predictions found; a comparison needs at least two"):
        found(runs=[str(sweep / "0_a")])
    with pytest.raises(CxrnetError, match="sweep: 0 runs with predictions found"):
        found(sweep=str(sweep / "no run"))
