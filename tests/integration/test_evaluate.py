"""``python -m cxrnet.evaluate`` as a user types it, on a run of ``cxrnet.train``."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

QUICK = ("data.size=[32,32]", "model=custom_cnn", "trainer=cpu", "schedule.max_epochs=2", "evaluation.resamples=200")
NORTH = ("+external={north: folder}", "sets.north.root=north data", "classes.north={sick: Covid, odd: null}")


def cxrnet(command: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"cxrnet.{command}", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, draw) -> Path:
    """A finished run, and two data sets: one with copies and other names, one as published, with a split."""
    folder = tmp_path_factory.mktemp("work place")
    own = draw(folder / "my xrays", images=20)
    north = draw(folder / "north data", classes=("sick", "Normal", "odd"), images=8, seed=3)
    for i in range(3):
        shutil.copy(own / "Covid" / f"{i:02}.png", north / "sick" / f"copy {i}.png")
    draw(folder / "south" / "train", images=5, seed=4)
    draw(folder / "south" / "test", images=5, seed=5)
    done = cxrnet("train", "data=folder", "data.root=my xrays", *QUICK, folder=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


@pytest.fixture(scope="module")
def run(workplace) -> Path:
    (found,) = (workplace / "outputs" / "runs").iterdir()
    return found


@pytest.fixture(scope="module")
def evaluated(workplace, run) -> tuple[Path, subprocess.CompletedProcess[str]]:
    data = ("data=folder", "data.root=south", *NORTH, "evaluation.resamples=200")
    done = cxrnet("evaluate", f"bundle={run.relative_to(workplace)}", *data, folder=workplace)
    assert done.returncode == 0, done.stderr + done.stdout
    (folder,) = (workplace / "outputs" / "evaluations").iterdir()
    return folder, done


def test_everything_is_in_its_folder(evaluated):
    folder, done = evaluated
    assert done.stderr == ""
    for name in ("generalisation.csv", "generalisation.md", "generalisation.html", "copies.csv", "config.yaml"):
        assert (folder / name).stat().st_size, name
    for data, images in (("folder", 30), ("north", 16)):
        assert len(pd.read_parquet(folder / data / "predictions.parquet")) == images
        accuracy = json.loads((folder / data / "metrics.json").read_text())["test"]["accuracy"]
        assert accuracy["n"] == images
        assert accuracy["interval"][0] <= accuracy["value"] <= accuracy["interval"][1]
        assert (folder / data / "confusion_matrix.png").is_file()
        baselines = json.loads((folder / data / "metrics.json").read_text())["baselines"]["test"]
        assert baselines["thumbnail"]["accuracy"]["n"] == baselines["majority"]["accuracy"]["n"] == images
    page = (folder / "generalisation.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3 + 2  # decision curves of the classes that each data set has
    assert "<h2>Trivial baselines</h2>" in page
    assert not list(folder.rglob("*.partial"))


def test_copies_are_taken_out_and_said(evaluated):
    folder, done = evaluated
    copies = pd.read_csv(folder / "copies.csv")
    assert copies["data"].tolist() == ["north"] * 3
    assert copies["image_id"].tolist() == [f"sick/copy {i}.png" for i in range(3)]
    assert "north: 3 images are copies of images that the bundle was made with or tested on" in done.stdout
    assert "3 taken out" in (folder / "generalisation.md").read_text()
    assert "their published split ignored" in done.stdout


def test_the_fall_stands_beside_the_internal_result(evaluated, run):
    folder, done = evaluated
    table = pd.read_csv(folder / "generalisation.csv", keep_default_na=False, na_values=[""])
    internal = json.loads((run / "metrics.json").read_text())["test"]
    (row,) = table[(table["data"] == "folder") & (table["metric"] == "accuracy")].to_dict("records")
    assert row["internal"] == pytest.approx(internal["accuracy"]["value"])
    assert row["change"] == pytest.approx(row["external"] - row["internal"])
    assert row["change_low"] < row["change"] < row["change_high"]
    (gap,) = table[(table["data"] == "north") & (table["metric"] == "roc_auc_macro")].to_dict("records")
    assert (gap["over"], gap["change"] == gap["change"]) == ("Covid, Normal", True)
    assert "The fall (95% intervals)" in done.stdout


def test_the_model_card_says_what_came_of_it(evaluated, run):
    folder, _ = evaluated
    assert "NOT EXTERNALLY VALIDATED" in (run / "MODEL_CARD.md").read_text()
    for name in ("MODEL_CARD.md", "model_card.html"):
        card = (folder / name).read_text()
        assert "NOT EXTERNALLY VALIDATED" not in card
        assert "Known issues of the data" in card
        assert card.count("ROC-AUC, macro of Covid, Normal alone") >= 2  # in its section and in the checklist


def test_mlflow_has_it_as_a_run_of_its_own(evaluated, run, workplace, logged_files):
    from mlflow import MlflowClient

    folder, _ = evaluated
    client = MlflowClient(f"sqlite:///{workplace}/outputs/mlflow.db")
    logged = client.get_run(json.loads((folder / "run.json").read_text())["run_id"])
    assert logged.info.status == "FINISHED"
    assert logged.data.tags["cxrnet.bundle_run_id"] == json.loads((run / "run.json").read_text())["run_id"]
    metrics = json.loads((folder / "north" / "metrics.json").read_text())["test"]
    assert logged.data.metrics["north/accuracy"] == pytest.approx(metrics["accuracy"]["value"])
    assert "folder/roc_auc_macro" in logged.data.metrics
    inputs = {each.dataset.name: each.tags[0].value for each in logged.inputs.dataset_inputs}
    assert inputs == {"folder": "evaluation", "north": "evaluation"}
    names = logged_files(client, logged.info.run_id)
    assert {"report/generalisation.html", "report/generalisation.md", "tables/generalisation.csv"} <= names
    assert {"data/copies.csv", "plots/north/roc_curves.png", "tables/north/metrics.json"} <= names


def test_a_bundle_alone_has_no_card_to_add_to_and_it_is_said(workplace, run):
    shutil.copytree(run / "bundle", workplace / "sent by mail" / "bundle")
    quick = ("tracking=none", "evaluation.resamples=100", "hydra.run.dir=without card")
    data = ("data=folder", "data.root=south")
    done = cxrnet("evaluate", "bundle=sent by mail/bundle", *data, *quick, folder=workplace)
    assert (done.returncode, done.stderr) == (0, "")
    assert "model card   not written: beside the bundle lies none of its run" in done.stdout
    assert not (workplace / "without card" / "MODEL_CARD.md").exists()


def test_another_prior_is_that_of_the_external_and_of_the_internal_result(evaluated, workplace, run):
    plain, _ = evaluated
    quick = ("tracking=none", "evaluation.resamples=0", "hydra.run.dir=at prior")
    arguments = (f"bundle={run}", "data=folder", "data.root=south", "prior={Covid: 0.02}")
    done = cxrnet("evaluate", *arguments, *quick, folder=workplace)
    assert done.returncode == 0, done.stderr
    shares = "Covid 0.02, Normal 0.49, Viral Pneumonia 0.49"
    assert f"of the prior ({shares})" in done.stdout
    for name in ("generalisation.html", "generalisation.md", "MODEL_CARD.md"):
        assert f"of the prior ({shares})" in (workplace / "at prior" / name).read_text(encoding="utf-8"), name
    before = pd.read_parquet(plain / "folder" / "predictions.parquet")
    after = pd.read_parquet(workplace / "at prior" / "folder" / "predictions.parquet")
    shift = (after["logit_Covid"] - after["logit_Normal"]) - (before["logit_Covid"] - before["logit_Normal"])
    np.testing.assert_allclose(shift, np.log(0.02 / 0.49), atol=1e-4)  # as many training images of each class
    values = pd.read_csv(workplace / "at prior" / "folder" / "predictive_values.csv")
    assert values.loc[values["class"] == "Covid", "prevalence"].tolist() == [0.005, 0.02, 0.05, 0.2]
    curves = pd.read_csv(workplace / "at prior" / "folder" / "decision_curves.csv")
    assert set(curves.loc[curves["class"] == "Covid", "prevalence"]) == {0.02}
    table = pd.read_csv(workplace / "at prior" / "generalisation.csv")
    internal = table[table["metric"] == "brier"]["internal"].iloc[0]
    assert internal != pytest.approx(json.loads((run / "metrics.json").read_text())["test"]["brier"]["value"])


def test_a_run_by_its_id_and_a_label_without_a_class(workplace, run):
    run_id = json.loads((run / "run.json").read_text())["run_id"]
    done = cxrnet("evaluate", f"bundle={run_id}", *NORTH[:2], "tracking=none", folder=workplace)
    assert (done.returncode, done.stderr) == (
        2,
        "error: classes.north: no class of the bundle (Covid, Normal, Viral Pneumonia) for the label odd, sick; give "
        "classes.north={odd: ..., sick: ...}, with a class or null, which leaves the images out\n",
    )


def test_the_data_of_the_run_itself_are_refused_in_one_line(workplace, run):
    done = cxrnet("evaluate", f"bundle={run}", "data=folder", "data.root=my xrays", "tracking=none", folder=workplace)
    assert done.returncode == 2
    assert done.stderr == (
        "error: folder: no image is left (60 of 60 images are copies of images of the bundle's run); give data with "
        "other images\n"
    )
