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


def cxrnet(command: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"cxrnet.{command}", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "outputs" / "runs").iterdir()
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with two classes of images, dark and bright stripes, that a small network can tell apart."""
    folder = tmp_path_factory.mktemp("work place")
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
def trained(workplace) -> tuple[Path, subprocess.CompletedProcess[str]]:
    done = cxrnet("train", "data=folder", "data.root=my xrays", *QUICK, folder=workplace)
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
        "recall_per_class.png",
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


def test_model_in_mlflow_predicts_like_the_run(trained, workplace):
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
    done = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bundle_in_a_fresh_process_gives_the_logits_of_training(trained, workplace):
    folder, _ = trained
    output = workplace / "again.parquet"
    done = cxrnet(
        "predict", f"bundle={folder / 'bundle'}", "input=my xrays", f"output={output}", "batch_size=8", folder=workplace
    )
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
        ("output=predictions.txt", "neither .csv nor .parquet"),
        ("output=nowhere/predictions.csv", "the folder of 'nowhere/predictions.csv' doesn't exist"),
        ("batch_size=0", "batch_size: 0"),
        ("input=nothing.png", "'nothing.png' doesn't exist"),
        ("bundle=nothing", "'nothing' has no bundle.json"),
        ("prior={Pneumonia: 5}", "prior.Pneumonia: 5 is no share of the images"),
    ],
)
def test_mistakes_of_predict_are_one_line(trained, workplace, argument, message):
    folder, _ = trained
    done = cxrnet("predict", f"bundle={folder / 'bundle'}", "input=my xrays", argument, folder=workplace)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_predict_at_another_prior(trained, workplace):
    folder, _ = trained
    train = pd.read_parquet(folder / "manifest.parquet").query("split == 'train'")["label"]
    share = (train == "Pneumonia").mean()
    tables, said = [], []
    for name, prior in (("plain", ()), ("other", ("prior={Pneumonia: 0.02}",))):
        output = workplace / f"{name}.parquet"
        arguments = (f"bundle={folder / 'bundle'}", "input=my xrays", f"output={output}", *prior)
        done = cxrnet("predict", *arguments, folder=workplace)
        assert done.returncode == 0, done.stderr
        tables.append(pd.read_parquet(output))
        said.append(done.stderr)
    odds = [table["prob_Pneumonia"] / (1 - table["prob_Pneumonia"]) for table in tables]
    np.testing.assert_allclose(odds[1] / odds[0], (0.02 / 0.98) / (share / (1 - share)), rtol=1e-3)
    assert f"of the training mix (No Finding {1 - share:.3g}, Pneumonia {share:.3g})" in said[0]
    assert "of the prior (No Finding 0.98, Pneumonia 0.02)" in said[1]


def test_checkpoints_hold_tensors_and_plain_values_only(trained):
    folder, _ = trained
    for name in ("kept", "last"):
        checkpoint = torch.load(folder / "checkpoints" / "scratch" / f"{name}.ckpt", weights_only=True)
        assert "network.backbone.block1.0.weight" in checkpoint["state_dict"]


def test_a_second_run_never_writes_over_the_first(trained, workplace):
    folder, _ = trained
    done = cxrnet("train", "data=folder", "data.root=my xrays", *QUICK, f"hydra.run.dir='{folder}'", folder=workplace)
    assert done.returncode == 2
    assert "holds a run already" in done.stderr
    assert json.loads((folder / "run.json").read_text())["status"] == "FINISHED"


@pytest.mark.parametrize("finetune", ["finetune=true", "+finetune=true"])
def test_both_spellings_of_finetune_enable_the_second_phase(workplace, tmp_path, finetune):
    done = cxrnet(
        "train",
        "data=folder",
        f"data.root={workplace / 'my xrays'}",
        *QUICK,
        finetune,
        "tracking=none",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    history = pd.read_csv(run_folder(tmp_path) / "history.csv")
    assert history["phase"].tolist() == ["scratch", "scratch", "finetune", "finetune"]
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert not (tmp_path / "outputs" / "mlflow.db").exists()


def test_sweep_goes_on_after_a_job_that_fails(workplace, tmp_path):
    arguments = ("data=folder", f"data.root={workplace / 'my xrays'}", *QUICK, "trainer=debug")
    done = cxrnet("train", "-m", *arguments, "loss.class_weights=wrong,none,balanced", folder=tmp_path)
    assert done.returncode != 0
    assert "loss.class_weights: 'wrong' is not known" in done.stderr
    assert "Traceback" not in done.stderr
    with sqlite3.connect(tmp_path / "outputs" / "mlflow.db") as database:
        statuses = database.execute("select status from runs order by start_time").fetchall()
    assert statuses == [("FAILED",), ("FINISHED",), ("FINISHED",)]


def test_sweep_over_several_devices_is_refused(workplace, tmp_path):
    arguments = ("data=folder", f"data.root={workplace / 'my xrays'}", "trainer=ddp", "trainer.devices=2", "seed=0,1")
    done = cxrnet("train", "-m", *arguments, folder=tmp_path)
    assert done.returncode != 0
    assert "a sweep can't train on several devices" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data=folder",), "data.root: no value is set"),
        (("data=folder", "data.root=nowhere"), "'nowhere' is not a folder"),
        (("data=covid19_image",), "data/README.md"),
        (("data.split.fractions.train=0.9",), "sum to 1.3"),
        (("data.root={images}", "data=folder", "model.weights=imagenet", "model=custom_cnn"), "no ImageNet weights"),
        (("data.root={images}", "data=folder", "model.weights=nothing.pt"), "'nothing.pt' is not a file"),
        (
            ("data.root={images}", "data=folder", "model.pool=median"),
            "Invalid value 'median', expected one",
        ),
        (("data.root={images}", "data=folder", "data.classes=[a,b]"), "data.classes"),
        (("data.root={images}", "data=folder", "schedule.views=-1"), "schedule.views: -1"),
        (("data.root={images}", "data=folder", "schedule.scratch.name=a/b"), "the name becomes a folder"),
        (("data.root={images}", "data=folder", "tracking.uri=file:mlruns"), "sqlite"),
    ],
)
def test_a_users_mistake_is_one_line(workplace, tmp_path, arguments, message):
    images = str(workplace / "my xrays")
    quick = (
        ("data.size=[32,32]", "data.manifest.images=16") if "data=folder" not in arguments else ("data.size=[32,32]",)
    )
    if "data=covid19_image" in arguments:
        quick = ()
    done = cxrnet("train", *(a.format(images=images) for a in arguments), *quick, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is always a GPU")
@pytest.mark.parametrize("trainer", ["auto", "cpu"])
def test_what_the_cpu_has_not_got_is_refused_before_images_are_read(workplace, tmp_path, monkeypatch, trainer):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments = (
        "data=folder",
        f"data.root={workplace / 'my xrays'}",
        f"trainer={trainer}",
        "trainer.precision=16-mixed",
    )
    done = cxrnet("train", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: trainer.precision: 16-mixed needs a GPU, and training would run on the CPU; "
        "give trainer.precision=bf16-mixed\n"
    )
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["runs"]  # no decoded images, no run in MLflow


def test_gradients_that_cannot_be_clipped_are_refused_before_images_are_read(workplace, tmp_path):
    arguments = ("data=folder", f"data.root={workplace / 'my xrays'}", "trainer=cpu", "trainer.precision=bf16-mixed")
    done = cxrnet("train", *arguments, "trainer.gradient_clip_val=1.0", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: trainer.gradient_clip_val: 1.0, but gradients of a fused optimizer can't be clipped in bf16-mixed; "
        "give optimizer.fused=false\n"
    )
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["runs"]


def test_ctrl_c_ends_the_run_as_killed_with_one_line(workplace, tmp_path):
    images = f"data.root={workplace / 'my xrays'}"
    line = [sys.executable, "-m", "cxrnet.train", "data=folder", images, *QUICK, "schedule.max_epochs=null"]
    line += ["schedule.scratch.epochs=5000", "schedule.scratch.patience=null"]
    # A shell ignores SIGINT for jobs in the background; a person's terminal doesn't.
    job = subprocess.Popen(
        line,
        cwd=tmp_path,
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
    record = json.loads((run_folder(tmp_path) / "run.json").read_text())
    assert record["status"] == "KILLED"
    with sqlite3.connect(tmp_path / "outputs" / "mlflow.db") as database:
        assert database.execute("select status from runs").fetchall() == [("KILLED",)]
