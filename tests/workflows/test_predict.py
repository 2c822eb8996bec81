import dataclasses
import json
import zipfile
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from cxrnet.cli.app import compose_config
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError
from cxrnet.models.bundle import Bundle, load_bundle, save_bundle
from cxrnet.tracking.model import log_model
from cxrnet.workflows.bundle_source import find_bundle
from cxrnet.workflows.predict import check_output, predict
from cxrnet.workflows.settings import Predict

CLASSES = ("Covid", "Normal", "Viral Pneumonia")


@pytest.fixture
def bundle(make_network) -> Bundle:
    return Bundle(make_network(classes=CLASSES, size=(32, 32)), "pad", 1.0, {"Covid": 0.35}, "", {}, {})


@pytest.fixture
def place(bundle, draw, tmp_path, monkeypatch):
    save_bundle(bundle, tmp_path / "run" / "bundle")
    draw(tmp_path / "xrays", classes=CLASSES, images=4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words) -> None:
    predict(compose_config(Predict, ["bundle=run", "input=xrays", *words]))


def test_one_line_an_image_in_each_form(place, capsys):
    run()
    out, err = capsys.readouterr()
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == [f"xrays/{name}/0{k}.png" for name in CLASSES for k in range(4)]
    assert all(line[1] in CLASSES and 0 <= float(line[2]) <= 1 for line in lines)
    assert all(("positive from 0.35 on" in line[3]) == (line[1] == "Covid") for line in lines)
    assert "labels: of 12 of 12 images, from the names of folders and files" in err
    assert "point of Covid: positive from a probability of 0.35 on; no test result of this model lies beside" in err
    run("format=csv")
    table = pd.read_csv(StringIO(capsys.readouterr().out))
    assert table["predicted"].tolist() == [line[1] for line in lines]
    run("format=json", "batch_size=2")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prob_Covid"] for row in rows] == pytest.approx(table["prob_Covid"].tolist(), abs=1e-6)
    for name, read in (("p.jsonl", lambda path: pd.read_json(path, lines=True)), ("p.parquet", pd.read_parquet)):
        run(f"output={name}")
        assert read(name)["predicted"].tolist() == table["predicted"].tolist()


def test_where_labels_are_known_the_confusion_matrix_follows(place, capsys):
    run("labels=none")
    assert "confusion" not in (said := capsys.readouterr().err)
    assert "label (rows)" not in said
    run("format=csv")
    captured = capsys.readouterr()
    table = pd.read_csv(StringIO(captured.out))
    counts = pd.crosstab(table["label"], table["predicted"]).reindex(index=CLASSES, columns=CLASSES, fill_value=0)
    printed = captured.err.partition("label (rows) against prediction (columns)\n\n")[2].splitlines()
    assert [line.split()[-3:] for line in printed[2:5]] == [[str(n) for n in row] for row in counts.to_numpy()]
    accuracy = (table["label"] == table["predicted"]).mean()
    assert f"accuracy: {accuracy:.3f} (95 % CI" in captured.err


def test_unreadable_files_are_listed_and_the_exit_status_says_so(place, capsys):
    (place / "xrays" / "Covid" / "00.png").write_bytes(b"broken")
    (place / "xrays" / "Covid" / "01.png").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 10
    assert "no prediction for 2 of 12 files:\n  'xrays/Covid/00.png' is not an image" in err
    assert "'xrays/Covid/01.png' is empty (0 bytes)" in err
    with pytest.raises(CxrnetError, match="2 of 12 files give no image"):
        run("on_error=fail")


def test_an_archive_gives_what_its_folder_gives(place, capsys):
    run("format=csv")
    plain = pd.read_csv(StringIO(capsys.readouterr().out))
    with zipfile.ZipFile("xrays.zip", "w") as archive:
        for file in sorted((place / "xrays").rglob("*.png")):
            archive.write(file, file.relative_to(place / "xrays"))
    run("input=xrays.zip", "format=csv")
    packed = pd.read_csv(StringIO(capsys.readouterr().out))
    assert packed["path"][0] == "xrays.zip/Covid/00.png"
    pd.testing.assert_frame_equal(*(each.drop(columns=["path", "source"]) for each in (plain, packed)))


def test_the_operating_point_is_told_with_the_test_result_of_the_run(place, bundle, capsys):
    manifest = folder("xrays")
    write_manifest(manifest, place / "run" / "manifest.parquet")
    save_bundle(dataclasses.replace(bundle, manifest_digest=digest(manifest)), place / "run" / "bundle")
    metric = {"value": 0.9, "interval": [0.8, 0.95], "n": 40}
    of_class = {"sensitivity": metric, "specificity": {**metric, "n": 60}}
    (place / "run" / "metrics.json").write_text(json.dumps({"test": {"per_class": dict.fromkeys(CLASSES, of_class)}}))
    run()
    numbers = "sensitivity 0.900 (0.80 to 0.95) of 40, specificity 0.900 (0.80 to 0.95) of 60"
    assert f"on the test images: {numbers}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "form", "reason"),
    [
        (None, "parquet", r"^format: parquet can't be printed; give output=<file>\.parquet"),
        ("p.txt", "table", r"^output: 'p\.txt' ends in none of \.csv"),
        ("p.csv", "json", r"^output: 'p\.csv' is no json"),
        ("nowhere/p.csv", "table", "^output: .*doesn't exist; make it first"),
        ("folder.csv", "table", "^output: .*is a folder; give another name"),
        ("/proc/p.csv", "table", "^output: .*can't be written to"),
    ],
)
def test_a_place_for_predictions_that_will_not_do_is_told_before_any_are_made(
    tmp_path, monkeypatch, output, form, reason
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    check_output("p.csv", "csv")
    with pytest.raises(CxrnetError, match=reason):
        check_output(output, form)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


def test_a_bundle_is_found_by_its_run_and_its_registered_model(bundle, place):
    uri = f"sqlite:///{place}/mlflow.db"
    client = MlflowClient(uri)
    run_id = client.create_run(client.create_experiment("x", f"{place}/artifacts")).info.run_id
    log_model(client, run_id, place / "run" / "bundle", CLASSES, False)
    source = client.get_run(run_id).data.tags["cxrnet.model_uri"]
    client.create_registered_model("chest")
    version = client.create_model_version("chest", source, run_id).version
    client.set_registered_model_alias("chest", "best", version)
    ways = (run_id, f"runs:/{run_id}/bundle", f"models:/chest/{version}", "models:/chest@best")
    for number, way in enumerate(ways):
        scratch = place / str(number)
        scratch.mkdir()
        found = find_bundle(way, scratch, uri)
        assert (found.run_id, load_bundle(found.folder).classes) == (run_id, CLASSES)
    for way in ("models:/chest@worst", "models:/chest/7", "models:/knee@best"):
        with pytest.raises(CxrnetError, match=f"bundle: MLflow has no registered model '{way}'"):
            find_bundle(way, place / "9", uri)
    with pytest.raises(CxrnetError, match="is no folder, no id of an MLflow run and no registered model"):
        find_bundle("models:/chest", place / "9", uri)


def test_what_the_gate_turns_away_is_said_and_gets_no_class(place, bundle, gated, capsys):
    gated_bundle, noise = gated(bundle)
    save_bundle(gated_bundle, place / "run" / "bundle")
    (place / "odd").mkdir()
    for name, image in (("Covid-1", noise(bundle, 1, 5)[0]), ("Covid-2", np.zeros((32, 32), np.uint8))):
        Image.fromarray(image).save(place / "odd" / f"{name}.png")
    run("input=odd")
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == "odd/Covid-2.png\tdoes not look like a frontal chest radiograph"
    assert "turned away: 1 of 2 images, of which no class is told" in err
    assert "input (n = 1)" in err
    run("input=odd", "gate=false")
    assert out.splitlines()[0] == capsys.readouterr().out.splitlines()[0]
    run("input=odd", "format=csv", "output=odd.csv")
    table = pd.read_csv("odd.csv")
    assert table["turned_away"].tolist() == [False, True]
    assert table["predicted"].isna().tolist() == [False, True]


def test_a_bundle_without_a_gate_says_so(place, capsys):
    run()
    assert "gate: the bundle has none" in capsys.readouterr().err
