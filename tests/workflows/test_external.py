"""What is refused before anything is read; the rest is in ``tests/integration/test_evaluate.py``."""

import pytest
from hydra import compose, initialize_config_dir

from cxrnet.cli.app import config_folder
from cxrnet.errors import CxrnetError
from cxrnet.workflows.evaluate import evaluate_external


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("device=toaster", "device: 'toaster' can't be used here; use auto, cpu, cuda or mps"),
        ("bundle=nowhere", "bundle: 'nowhere' is no folder and no id of an MLflow run; give one of them"),
        ("~data", "data: nothing to evaluate on; give data=<option> or"),
    ],
)
def test_a_mistake_leaves_no_run_behind(word, message, tmp_path):
    overrides = ["bundle=x", "data=phantom", f"outputs={tmp_path}", word]
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        config = compose("evaluate", overrides)
        with pytest.raises(CxrnetError, match=message):
            evaluate_external(config, tmp_path, None if word == "~data" else "phantom", overrides)
    assert not list(tmp_path.glob("*.db"))
    assert not (tmp_path / "run.json").exists()


def test_an_evaluation_is_not_written_over(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(CxrnetError, match=r"holds a run already; give another hydra"):
        evaluate_external(None, tmp_path, None, [])
