import pytest

from cxrnet.tracking.names import artifact_folder, job_names, run_name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "resnet50 covid19_image"),
        (["model=resnet50", "data=covid19_image", "seed=1"], "resnet50 covid19_image seed=1"),
        (["+finetune=true", "optimizer.lr=0.1"], "resnet50 covid19_image finetune=true lr=0.1"),
        (["a.lr=1", "b.lr=2"], "resnet50 covid19_image a.lr=1 b.lr=2"),
        (["tracking.uri=x", "outputs=/y", "data.num_workers=2", "hydra.run.dir=w"], "resnet50 covid19_image"),
        (["trainer=cpu", "data.root='/a b/site_2'"], "resnet50 covid19_image trainer=cpu root=site_2"),
        (["seed=1", "experiment=demo", f"note={'x' * 50}"], f"demo seed=1 note={'x' * 36} ..."),
        (["data=folder", "data.root=x", "data.size=[9,9]"], "folder root=x size=[9,9]"),
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


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ((["model=a", "x=1"], ["model=b", "x=1"]), ["model=a", "model=b"]),
        ((["+optimizer.lr=1"], ["+optimizer.lr=2"]), ["lr=1", "lr=2"]),
        ((["a.lr=1", "b.lr=2"], ["a.lr=2", "b.lr=1"]), ["a.lr=1 b.lr=2", "a.lr=2 b.lr=1"]),
        ((["lr=0.0044303752"], ["lr=1.7826497e-05"]), ["lr=0.00443", "lr=1.783e-05"]),
        ((["seed=0"],), ["job 0"]),
        ((["seed=0"], ["seed=0"]), ["job 0", "job 1"]),
        ((["folds=5"], []), ["folds=5", "job 1"]),
    ],
)
def test_a_job_is_named_by_what_tells_it_from_the_others(overrides, names):
    assert job_names(overrides) == names
