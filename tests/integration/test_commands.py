"""The commands of the README, typed as a user types them, on small data."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

QUICK = (
    "data.size=[32,32]",
    "model=custom_cnn",
    "trainer=cpu",
    "schedule.max_epochs=2",
    "data.batch_size=8",
    "evaluation.resamples=200",
)


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "outputs" / "runs").iterdir()
    return found


@pytest.fixture(scope="module")
def workplace(make_place) -> Path:
    """A folder with two classes of images, dark and bright stripes, that a small network can tell apart."""
    folder = make_place("work place")
    rng = np.random.default_rng(0)
    for label, period in (("No Finding", 4), ("Pneumonia", 9)):
        target = folder / "my xrays" / label
        target.mkdir(parents=True)
        for i in range(30):
            x = np.arange(48) + rng.integers(period)
            stripes = np.where(x // period % 2, 150, 90) + rng.normal(0, 25, (48, 48))
            Image.fromarray(stripes.clip(0, 255).astype(np.uint8)).save(target / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def trained(workplace, train) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a run, and what its process printed."""
    done = train(workplace, "data=folder", "data.root=my xrays", *QUICK)
    assert done.returncode == 0, done.stderr + done.stdout
    return run_folder(workplace), done


def test_everything_a_run_promises_is_in_its_folder(trained):
    folder, _ = trained
    for name in (
        "predictions.parquet",
        "metrics.json",
        "classification_report.txt",
        "roc_auc.txt",
        "predictive_values.csv",
        "reliability.png",
        "risk_coverage.png",
        "MODEL_CARD.md",
        "model_card.html",
        "model_card.json",
        "confusion_matrix.png",
        "accuracy_curve.png",
        "loss_curve.png",
        "sensitivity_per_class.png",
        "roc_curves.png",
        "pr_curves.png",
        "class_indices.json",
        "bundle/bundle.json",
        "bundle/model.safetensors",
        "report.html",
        "run.json",
        "manifest.parquet",
    ):
        assert (folder / name).stat().st_size > 0, name
    metrics = json.loads((folder / "metrics.json").read_text())
    predictions = pd.read_parquet(folder / "predictions.parquet")
    test = predictions[predictions["split"] == "test"]
    accuracy = metrics["test"]["accuracy"]
    assert (accuracy["value"], accuracy["n"]) == (float((test["label"] == test["predicted"]).mean()), len(test))
    assert accuracy["interval"][0] < accuracy["value"]
    assert {"value", "n"} <= set(metrics["test"]["per_class"]["Pneumonia"]["sensitivity"])
    assert json.loads((folder / "class_indices.json").read_text()) == {"No Finding": 0, "Pneumonia": 1}
    report = (folder / "report.html").read_text()
    assert "from scratch" in report
    assert "Patients are not known" in report
    # The image that is wrong with the highest probability is among those that are shown.
    wrong = test[test["label"] != test["predicted"]]
    probability = wrong[["prob_No Finding", "prob_Pneumonia"]].max(axis=1)
    for image in wrong["image_id"][probability.nlargest(1).index]:
        assert image in report.replace("<wbr>", "")
    assert report.count("data:image/jpeg;base64,") >= min(12, len(test))
    assert len(report) < 8_000_000


def test_console_says_what_matters_and_nothing_of_libraries(trained):
    folder, done = trained
    for words in ("60 from my xrays", "No Finding", "patients", "scratch", "majority", "8x8 thumbnails", "report.html"):
        assert words in done.stdout, words
    chatter = ("Tip", "GPU available", "warn(", "Warning", "litlogger", "LOCAL_RANK", "\x1b[")
    assert not [word for word in chatter if word in done.stdout + done.stderr]
    assert "GPU available" in (folder / "run.log").read_text()  # nothing is lost, it is in the log


def test_mlflow_holds_the_run(trained, workplace):
    folder, _ = trained
    record = json.loads((folder / "run.json").read_text())
    with sqlite3.connect(workplace / "outputs" / "mlflow.db") as database:

        def values(query: str) -> dict[str, str]:
            return dict(database.execute(query, (record["run_id"],)).fetchall())

        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
        params = values("select key, value from params where run_uuid = ?")
        tags = values("select key, value from tags where run_uuid = ?")
        latest = values("select key, value from latest_metrics where run_uuid = ?")
        steps = values("select key, max(step) from metrics where run_uuid = ? group by key")
        digests = database.execute("select digest from datasets").fetchall()
    assert params["model.backbone"] == "custom_cnn"
    assert params["schedule.phases.finetune.enabled"] == "None"
    assert tags["cxrnet.run_dir"] == str(folder)
    assert tags["weights.origin"] == "random"
    for name in ("loss", "accuracy", "roc_auc_macro"):
        assert {f"train/{name}", f"val/{name}"} <= set(latest)
    for name in ("val/sensitivity/Pneumonia", "val/specificity/No Finding", "test/accuracy", "test/accuracy/ci_low"):
        assert name in latest
    assert "test/balanced_accuracy/thumbnail" in latest
    assert "| Accuracy |" in tags["mlflow.note.content"]
    assert steps["val/loss"] == 2
    bundle = json.loads((folder / "bundle" / "bundle.json").read_text())
    assert bundle["manifest_digest"].startswith(digests[0][0])


def test_model_in_mlflow_predicts_like_the_run(trained, workplace, call):
    folder, _ = trained
    record = json.loads((folder / "run.json").read_text())
    code = f"""
import mlflow, pandas as pd
from pathlib import Path
mlflow.set_tracking_uri({record["tracking_uri"]!r})
rows = pd.read_parquet({str(folder / "predictions.parquet")!r})
model = mlflow.pyfunc.load_model("runs:/{record["run_id"]}/bundle")
out = model.predict(pd.DataFrame({{"image": [Path(p).read_bytes() for p in rows["path"]]}}))
assert (out["predicted"].to_numpy() == rows["predicted"].to_numpy()).all()
assert (out["prob_Pneumonia"] - rows["prob_Pneumonia"]).abs().max() < 1e-6
"""
    done = call(workplace, "-c", code)
    assert done.returncode == 0, done.stderr


def test_bundle_in_a_fresh_process_gives_the_logits_of_training(trained, workplace, call):
    folder, _ = trained
    output = workplace / "again.parquet"
    words = (f"bundle={folder / 'bundle'}", "input=my xrays", f"output={output}", "batch_size=8")
    done = call(workplace, "-m", "cxrnet.predict", *words)
    assert done.returncode == 0, done.stderr
    before = pd.read_parquet(folder / "predictions.parquet").set_index("image_id")
    after = pd.read_parquet(output).set_index("image_id").loc[before.index]
    for name in ("logit_No Finding", "logit_Pneumonia"):
        assert np.abs(before[name] - after[name]).max() < 1e-6
    assert len(done.stdout.splitlines()) == 60
    path, predicted, confidence = done.stdout.splitlines()[0].split("\t")
    assert Path(workplace / path).is_file()
    assert predicted in ("No Finding", "Pneumonia")
    assert 0.5 <= float(confidence) <= 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("output=predictions.txt", "ends in none of .csv, .parquet, .json, .jsonl"),
        ("output=nowhere/predictions.csv", "the folder of 'nowhere/predictions.csv' doesn't exist"),
        ("batch_size=0", "batch_size: 0"),
        ("input=nothing.png", "'nothing.png' doesn't exist"),
        ("bundle=nothing", "bundle: 'nothing' is no folder, no id of an MLflow run and no registered model"),
        ("prior={Pneumonia: 5}", "prior.Pneumonia: 5 is no prevalence"),
    ],
)
def test_mistakes_of_predict_are_one_line(trained, workplace, command, argument, message):
    folder, _ = trained
    done = command(workplace, "predict", f"bundle={folder / 'bundle'}", "input=my xrays", argument)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_predict_at_another_prior(trained, workplace, command):
    folder, _ = trained
    train = pd.read_parquet(folder / "manifest.parquet").query("split == 'train'")["label"]
    share = (train == "Pneumonia").mean()
    tables, said = [], []
    for name, prior in (("plain", ()), ("other", ("prior={Pneumonia: 0.02}",))):
        output = workplace / f"{name}.parquet"
        arguments = (f"bundle={folder / 'bundle'}", "input=my xrays", f"output={output}", *prior)
        done = command(workplace, "predict", *arguments)
        assert done.returncode == 0, done.stderr
        tables.append(pd.read_parquet(output))
        said.append(" ".join(done.stderr.split()))
    odds = [table["prob_Pneumonia"] / (1 - table["prob_Pneumonia"]) for table in tables]
    np.testing.assert_allclose(odds[1] / odds[0], (0.02 / 0.98) / (share / (1 - share)), rtol=1e-3)
    assert f"for the training prevalences (No Finding {1 - share:.3g}, Pneumonia {share:.3g})" in said[0]
    assert "for the given prior (No Finding 0.98, Pneumonia 0.02)" in said[1]


def test_checkpoints_hold_tensors_and_plain_values_only(trained):
    folder, _ = trained
    for name in ("kept", "last"):
        checkpoint = torch.load(folder / "checkpoints" / "scratch" / f"{name}.ckpt", weights_only=True)
        assert "network.backbone.block1.0.weight" in checkpoint["state_dict"]


@pytest.fixture(scope="module")
def refused(workplace, command):
    """Trains with arguments that won't do, which is one line; returns the line."""

    def call(folder: Path, *arguments: str) -> str:
        given = {word.partition("=")[0] for word in arguments}
        usual = {"data": "folder", "data.root": workplace / "my xrays", "model": "custom_cnn", "trainer": "cpu"}
        done = command(folder, "train", *arguments, *(f"{key}={usual[key]}" for key in usual.keys() - given))
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    return call


@pytest.fixture(scope="module")
def elsewhere(make_place) -> Path:
    return make_place("elsewhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data.root=nowhere",), "'nowhere' is not a folder"),
        (("data=covid19_image", "data.root=data/covid19_image"), "data/README.md"),
        (("model.weights=imagenet",), "no ImageNet weights"),
        (("model.weights=nothing.pt",), "'nothing.pt' is not a file"),
        (("data.classes=[a,b]",), "data.classes"),
    ],
)
def test_a_users_mistake_is_one_line(refused, elsewhere, arguments, message):
    assert message in refused(elsewhere, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model.pool=median",), "Invalid value 'median', expected one"),
        (("schedule.views=-1",), "schedule.views: -1"),
        (("schedule.scratch.name=a/b",), "the name becomes a folder"),
        (("tracking.uri=file:mlruns",), "sqlite"),
        (
            ("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0"),
            "trainer.gradient_clip_val: 1.0, but gradients of a fused optimizer can't be clipped in bf16-mixed; "
            "give optimizer.fused=false",
        ),
        (("trainer.precision=16-mixed",), "trainer.precision: 16-mixed needs a GPU, and training would run on the CPU"),
        pytest.param(
            ("trainer=auto", "trainer.precision=16-mixed"),
            "trainer.precision: 16-mixed needs a GPU, and training would run on the CPU; "
            "give trainer.precision=bf16-mixed",
            marks=pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_images_are_read(refused, tmp_path, arguments, message):
    assert message in refused(tmp_path, *arguments)
    assert {path.name for path in (tmp_path / "outputs").glob("*")} <= {"runs"}  # no images, no MLflow


@pytest.mark.slow
def test_ctrl_c_ends_the_run_as_killed_with_one_line(workplace, make_place):
    place = make_place("stopped")
    images = f"data.root={workplace / 'my xrays'}"
    line = [sys.executable, "-m", "cxrnet.train", "data=folder", images, *QUICK, "schedule.max_epochs=null"]
    line += ["schedule.scratch.epochs=5000", "schedule.scratch.patience=null"]
    # A shell ignores SIGINT for jobs in the background; a person's terminal doesn't.
    job = subprocess.Popen(
        line,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    while "train loss" not in (said := job.stdout.readline()):
        assert said, job.stderr.read()
    job.send_signal(signal.SIGINT)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 130
    assert errors.splitlines()[-1].startswith("stopped;")
    assert "Traceback" not in errors
    record = json.loads((run_folder(place) / "run.json").read_text())
    assert record["status"] == "KILLED"
    with sqlite3.connect(place / "outputs" / "mlflow.db") as database:
        assert database.execute("select status from runs").fetchall() == [("KILLED",)]
