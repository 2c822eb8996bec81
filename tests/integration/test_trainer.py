"""Classes of any name, and callbacks and loggers from the command line, in a run typed as a user types it."""

import json

import pandas as pd
import pytest
import yaml

CLASSES = ["[/red]", "a*b", "a+b", "Größe"]


@pytest.fixture(scope="module")
def finished(draw, command, make_place):
    """A run of two phases, of which every class is called what libraries take amiss."""
    place = make_place("work place")
    folders = ["red", "star", "plus", "size"]
    draw(place / "xrays", classes=folders)
    rows = [
        {"image_id": f"{name}{i}", "path": f"xrays/{name}/{i:02}.png", "label": label, "source": "drawn"}
        for name, label in zip(folders, CLASSES, strict=True)
        for i in range(12)
    ]
    pd.DataFrame(rows).to_csv(place / "table.csv", index=False)
    done = command(
        place, "train", "data=manifest", "data.root=table.csv", "data.size=[32,32]", "data.batch_size=8",
        "model=custom_cnn", "trainer=cpu", "schedule.max_epochs=2", "evaluation.resamples=100", "finetune=true",
        "hydra.run.dir=the run", "callbacks=[lr_monitor]", "logger=csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done


def test_every_class_has_its_own_metrics_in_mlflow(finished, query):
    place, done = finished
    assert done.stderr == ""
    epochs = query(place, "select key, max(step) from metrics where key like 'val/sensitivity/%' group by key")
    names = ("_/red__ee7c5a6c", "a_b_d1229a59", "a_b_8478c3c8", "Größe")
    assert sorted(epochs) == sorted((f"val/sensitivity/{name}", 4) for name in names)
    metrics = json.loads((place / "the run" / "metrics.json").read_text(encoding="utf-8"))["test"]["per_class"]
    for name, key in (("a+b", "a_b_8478c3c8"), ("a*b", "a_b_d1229a59")):
        for metric in ("sensitivity", "specificity"):
            value = metrics[name][metric]["value"]
            assert query(place, f"select value from latest_metrics where key = 'test/{metric}/{key}'") == [(value,)]


def test_classes_stand_as_they_are_everywhere_else(finished):
    place, done = finished
    folder = place / "the run"
    assert "[/red]" in done.stdout
    history = pd.read_csv(folder / "history.csv")
    assert all(f"val/specificity/{name}" in history for name in CLASSES)
    assert set(pd.read_parquet(folder / "predictions.parquet")["label"]) == set(CLASSES)
    (model,) = (place / "outputs" / "mlflow-artifacts").rglob("MLmodel")
    columns = json.loads(yaml.safe_load(model.read_text(encoding="utf-8"))["signature"]["outputs"])
    assert [column["name"] for column in columns[1:]] == [f"prob_{name}" for name in sorted(CLASSES)]


def test_the_logger_has_every_epoch_and_every_rate_of_both_phases(finished):
    place, _ = finished
    table = pd.read_csv(place / "the run" / "csv" / "version_0" / "metrics.csv")
    history = pd.read_csv(place / "the run" / "history.csv")
    losses = table.dropna(subset="val/loss")
    assert losses["epoch"].tolist() == (history["epoch"] - 1).tolist() == [0, 1, 2, 3]
    assert losses["val/loss"].tolist() == pytest.approx(history["val/loss"].tolist())
    assert losses["step"].is_monotonic_increasing
    rates = [name for name in table if name.startswith("lr-")]
    assert table[rates].notna().any(axis=None)
