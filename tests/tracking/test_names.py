import pytest

from cxrnet.tracking.names import artifact_folder, run_name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "resnet50 covid19_image"),
        (["model=resnet50", "data=covid19_image", "seed=1"], "resnet50 covid19_image seed=1"),
        (["+finetune=true", "optimizer.lr=0.1"], "resnet50 covid19_image finetune=true lr=0.1"),
        (["a.lr=1", "b.lr=2"], "resnet50 covid19_image a.lr=1 b.lr=2"),
        (["trainer=cpu", "tracking.uri=x", "outputs=/y", "data.root=z", "hydra.run.dir=w"], "resnet50 covid19_image"),
        (["seed=1", "experiment=demo", f"note={'x' * 50}"], f"demo seed=1 note={'x' * 36} ..."),
        (["data=folder", "data.root=x", "data.size=[9,9]"], "folder size=[9,9]"),
    ],
)
def test_a_run_is_named_by_what_differs_from_the_default(overrides, name):
    assert run_name("resnet50", "covid19_image", overrides) == name


def test_a_long_name_is_cut():
    assert len(run_name("a", "b", [f"key{i}=0.1" for i in range(50)])) == 120


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("report.html", "report"),
        ("roc_curves.png", "plots"),
        ("history.csv", "tables"),
        ("metrics.json", "tables"),
        ("predictions.parquet", "data"),
        ("class_indices.json", "data"),
        ("model_card.json", "report"),
        ("config.yaml", "config"),
        ("weights.bin", ""),
    ],
)
def test_a_file_has_its_folder(file, folder):
    assert artifact_folder(file) == folder
