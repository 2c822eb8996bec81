"""A whole run in process: its tables are those of the bundle on disk, and of the data everything is said."""

import re
import shutil
from functools import partial

import pandas as pd
import pytest
import torch

from cxrnet.cli.app import compose_config
from cxrnet.core.config import plain_config
from cxrnet.data.manifest import digest
from cxrnet.data.sources.folder import folder
from cxrnet.inference import predict_images, predictions_of
from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.models.bundle import load_bundle
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.workflows import train as workflow
from cxrnet.workflows.build import CALIBRATED
from cxrnet.workflows.run_context import RunContext, read_run_facts
from cxrnet.workflows.settings import Train
from cxrnet.workflows.train import train_once

WORDS = ("model=custom_cnn", "trainer=cpu", "schedule.max_epochs=1", "evaluation.resamples=100")


@pytest.fixture
def once(make_data, tmp_path):
    """Trains once; gives the folder, the data and the outcome."""

    def make(*words, **changes):
        config = plain_config(compose_config(Train, [*WORDS, *words]))
        data, run = make_data(**changes), tmp_path / "run"
        run.mkdir()
        return run, data, train_once(RunContext(config, run, ("python",), "r", False, None, TrackedRun(run)), data)

    return make


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_tables_of_a_run_are_those_of_its_bundle_to_the_last_bit(once):
    run, data, outcome = once("defer=0.25", "+operating_points={Covid: {sensitivity: 0.5}}", "loss=focal")
    bundle, parts = load_bundle(run / "bundle"), []
    assert bundle.manifest_digest == digest(data.manifest)
    for split in ("val", "test"):
        logits = predict_images(bundle, data.arrays(split)[0], data.batch_size, torch.device("cpu"))
        parts.append(predictions_of(bundle, data.rows(split), logits))
    expected = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(pd.read_parquet(run / "predictions.parquet"), expected, check_exact=True)
    (phase,) = read_run_facts(run)["phases"]
    assert phase["kept_score"] == outcome.score == pd.read_csv(run / "history.csv")["val/loss"][0]


@pytest.fixture
def weights(tmp_path):
    """The word that gives the small network weights, whose backbone is then frozen."""
    torch.save(backbone_spec("custom_cnn").build((64, 64)).state_dict(), tmp_path / "weights.pt")
    return f"model.weights={tmp_path / 'weights.pt'}"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_head_that_is_fitted_at_once_says_how_and_keeps_a_temperature_of_1(once, weights, capsys):
    run, _, _ = once(weights, "model.hidden=[]")
    bundle = load_bundle(run / "bundle")
    assert (bundle.temperature, bundle.temperature_offset) == (1.0, ())
    told = "logistic regression with an L2 of "
    assert bundle.training["fitted"]["head"].startswith(told)
    assert bundle.training["temperature"] == CALIBRATED
    said = " ".join(capsys.readouterr().out.split())
    report = re.sub(r"\s+", " ", (run / "report.html").read_text(encoding="utf-8"))
    for text in (said, report):
        assert told in text
    for text in (said, report, (run / "MODEL_CARD.md").read_text(encoding="utf-8")):
        assert CALIBRATED in text
    assert "fitted at once" in said
    (phase,) = read_run_facts(run)["phases"]
    assert phase["l2"] in dict(phase["losses"])
    assert (run / "l2_choice.png").exists()
    assert not (run / "loss_curve.png").exists()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_head_that_is_trained_by_epochs_is_calibrated_on_validation_images(once, weights, capsys):
    run, _, _ = once(weights, "model.hidden=[8]", "schedule.head.epochs=1")
    assert "by epochs, as the head is more than one dense layer" in " ".join(capsys.readouterr().out.split())
    assert "trained by epochs, as the head is more" in (run / "report.html").read_text(encoding="utf-8")
    assert "fitted" not in load_bundle(run / "bundle").training
    assert (run / "loss_curve.png").exists()
    assert not (run / "l2_choice.png").exists()


def test_duplicates_with_different_labels_are_said_and_listed_with_their_run(make_data, draw, tmp_path, capsys):
    root = draw(tmp_path / "set")
    for name in ("Normal", "Viral Pneumonia"):
        shutil.copy(root / "Covid" / "00.png", root / name / "same.png")
    shutil.copy(root / "Covid" / "01.png", root / "Covid" / "again.png")
    config = {"test": True, "folds": None, "folds_by": "patient", "loss": {"class_weights": None}}
    run = RunContext(config, tmp_path, (), "r", False, None, TrackedRun(tmp_path))
    warnings = workflow._log_data(run, make_data(manifest=partial(folder, root)))
    (said,) = (text for text in warnings if "different labels" in text)
    assert said.startswith("3 images are duplicates")
    assert said in capsys.readouterr().out
    listed = pd.read_csv(tmp_path / "label_conflicts.csv")
    assert listed["label"].tolist() == ["Covid", "Normal", "Viral Pneumonia"]
    assert listed["split"].nunique() == 1
