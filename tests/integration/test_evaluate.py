"""``python -m cxrnet.evaluate`` as a user types it, on a run of ``cxrnet.train``."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

QUICK = ("data.size=[32,32]", "model=custom_cnn", "trainer=cpu", "schedule.max_epochs=2", "evaluation.resamples=100")
NORTH = ("+external={north: folder}", "sets.north.root=north data", "classes.north={sick: Covid, odd: null}")


@pytest.fixture(scope="module")
def workplace(make_place, draw, command) -> Path:
    """A finished run, and two data sets: one with duplicates and other names, one as published, with a split."""
    folder = make_place("work place")
    own = draw(folder / "my xrays", images=20)
    north = draw(folder / "north data", classes=("sick", "Normal", "odd"), images=8, seed=3)
    for i in range(3):
        shutil.copy(own / "Covid" / f"{i:02}.png", north / "sick" / f"copy {i}.png")
    draw(folder / "south" / "train", images=5, seed=4)
    draw(folder / "south" / "test", images=5, seed=5)
    done = command(folder, "train", "data=folder", "data.root=my xrays", "report.images=0", *QUICK)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


@pytest.fixture(scope="module")
def run(workplace) -> Path:
    (found,) = (workplace / "outputs" / "runs").iterdir()
    return found


@pytest.fixture(scope="module")
def evaluated(workplace, run, command):
    """The folder, and what the command printed."""
    data = ("data=folder", "data.root=south", *NORTH, "evaluation.resamples=100")
    done = command(workplace, "evaluate", f"bundle={run.relative_to(workplace)}", *data)
    assert done.returncode == 0, done.stderr + done.stdout
    (folder,) = (workplace / "outputs" / "evaluations").iterdir()
    return folder, done


def test_everything_is_in_its_folder(evaluated):
    folder, done = evaluated
    assert done.stderr == ""
    for name in ("generalisation.csv", "generalisation.html", "duplicates.csv", "config.yaml"):
        assert (folder / name).stat().st_size, name
    for data, images in (("folder", 30), ("north", 16)):
        assert len(pd.read_parquet(folder / data / "predictions.parquet")) == images
        metrics = json.loads((folder / data / "metrics.json").read_text())
        low, high = metrics["test"]["accuracy"]["interval"]
        assert low <= metrics["test"]["accuracy"]["value"] <= high
        baselines = metrics["baselines"]["test"]
        assert baselines["thumbnail"]["accuracy"]["n"] == baselines["majority"]["accuracy"]["n"] == images
        assert (folder / data / "confusion_matrix.png").is_file()
    page = (folder / "generalisation.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3 + 2  # decision curves of the classes that each data set has
    assert "8 × 8 thumbnails" in page
    predictions = pd.read_parquet(folder / "folder" / "predictions.parquet")
    confidence = predictions.filter(like="prob_").max(axis=1)  # the surest of all is that of its class too
    assert predictions["image_id"][confidence.idxmax()] in page.replace("<wbr>", "")
    assert "data:image/jpeg;base64," in page
    assert not list(folder.rglob("*.partial"))


def test_pictures_of_patients_stay_in_the_house_where_that_is_asked_for(run):
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Pictures are left out (report.images=0)" in report
    assert "image/jpeg" not in report


def test_duplicates_are_removed_and_said(evaluated):
    folder, done = evaluated
    removed = pd.read_csv(folder / "duplicates.csv")
    assert removed["data"].tolist() == ["north"] * 3
    assert removed["image_id"].tolist() == [f"sick/copy {i}.png" for i in range(3)]
    assert "north: 3 images are duplicates" in done.stdout
    assert "3 removed" in (folder / "generalisation.html").read_text()
    assert "their published split ignored" in done.stdout


def test_the_drop_stands_beside_the_internal_result(evaluated, run):
    folder, done = evaluated
    table = pd.read_csv(folder / "generalisation.csv", keep_default_na=False, na_values=[""])
    internal = json.loads((run / "metrics.json").read_text())["test"]
    (row,) = table[(table["data"] == "folder") & (table["metric"] == "accuracy")].to_dict("records")
    assert row["internal"] == pytest.approx(internal["accuracy"]["value"])
    assert row["change"] == pytest.approx(row["external"] - row["internal"])
    assert row["change_low"] < row["change"] < row["change_high"]
    (mean,) = table[(table["data"] == "north") & (table["metric"] == "roc_auc_macro")].to_dict("records")
    assert (mean["over"], np.isnan(mean["change"])) == ("Covid, Normal", False)
    assert "Performance drop" in done.stdout


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
    assert {"report/generalisation.html", "tables/generalisation.csv", "data/duplicates.csv"} <= names
    assert {"plots/north/roc_curves.png", "tables/north/metrics.json"} <= names


def test_a_bundle_alone_has_no_card_to_add_to_and_it_is_said(workplace, run, command):
    shutil.copytree(run / "bundle", workplace / "sent by mail" / "bundle")
    quick = ("tracking=none", "evaluation.resamples=100", "hydra.run.dir=without card")
    done = command(workplace, "evaluate", "bundle=sent by mail/bundle", "data=folder", "data.root=south", *quick)
    assert (done.returncode, done.stderr) == (0, "")
    assert "model card   not written" in done.stdout
    assert not (workplace / "without card" / "MODEL_CARD.md").exists()


def test_another_prior_is_that_of_the_external_and_of_the_internal_result(evaluated, workplace, run, command):
    plain, folder = evaluated[0], workplace / "at prior"
    arguments = (f"bundle={run}", "data=folder", "data.root=south", "prior={Covid: 0.02}", "tracking=none")
    done = command(workplace, "evaluate", *arguments, "evaluation.resamples=0", "hydra.run.dir=at prior")
    assert done.returncode == 0, done.stderr
    shares = "for the given prior (Covid 0.02, Normal 0.49, Viral Pneumonia 0.49)"
    assert shares in " ".join(done.stdout.split())
    for name in ("generalisation.html", "MODEL_CARD.md"):
        assert shares in (folder / name).read_text(encoding="utf-8"), name
    before, after = (pd.read_parquet(place / "folder" / "predictions.parquet") for place in (plain, folder))
    shift = (after["logit_Covid"] - after["logit_Normal"]) - (before["logit_Covid"] - before["logit_Normal"])
    np.testing.assert_allclose(shift, np.log(0.02 / 0.49), atol=1e-4)  # as many training images of each class
    values = pd.read_csv(folder / "folder" / "predictive_values.csv")
    assert values.loc[values["class"] == "Covid", "prevalence"].tolist() == [0.005, 0.02, 0.05, 0.2]
    curves = pd.read_csv(folder / "folder" / "decision_curves.csv")
    assert set(curves.loc[curves["class"] == "Covid", "prevalence"]) == {0.02}
    table = pd.read_csv(folder / "generalisation.csv")
    internal = table[table["metric"] == "brier"]["internal"].iloc[0]
    assert internal != pytest.approx(json.loads((run / "metrics.json").read_text())["test"]["brier"]["value"])


def test_a_mistake_is_one_line(workplace, run, command):
    run_id = json.loads((run / "run.json").read_text())["run_id"]
    for words, said in {
        (f"bundle={run_id}", *NORTH[:2]): "classes.north: no class of the bundle (Covid, Normal, Viral Pneumonia)",
        (f"bundle={run}", "data=folder", "data.root=my xrays"): "folder: no image is left (60 of 60 images",
        (f"bundle={run}", "+external=[folder]"): "sets.folder.root: no value is set; give sets.folder.root=<value>",
        (f"bundle={run}", "+external=[foo]"): "data=foo: there is no such option; choose one of covid19_image, ",
    }.items():
        done = command(workplace, "evaluate", *words, "tracking=none")
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {said}")
        assert done.stderr.count("\n") == 1
