import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from cxrnet.cli.app import config_folder
from cxrnet.data.leaks import marked_duplicates
from cxrnet.data.manifest import make_manifest
from cxrnet.workflows.prepare import prepare

DATA = sorted(path.stem for path in (config_folder() / "data").glob("[!_]*.yaml"))

SMALL = ("data=folder", "data.size=[32,32]", "augment=none", "cache=null")


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return compose("prepare", list(overrides))


@pytest.mark.parametrize("option", DATA)
def test_every_data_set_can_be_prepared_from_the_groups_of_training(option):
    config = composed(f"data={option}", "data.root=somewhere", "seed=7")
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert set(plain) == {"data", "augment", "seed", "sheet", "report", "fix", "weights", "outputs", "cache"}
    assert plain["data"]["seed"] == 7


def test_duplicates_are_marked_with_where_they_stand_and_what_they_contradict():
    rows = pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "d"],
            "label": ["Covid", "Covid", "Normal", "Covid"],
            "split": ["train", "test", "train", "train"],
            "patient_id": ["1", "2", None, "1"],
            "path": "x.png",
            "source": "invented",
        }
    )
    manifest = make_manifest(rows, "invented")
    columns = ["image_id_a", "image_id_b", "split_a", "split_b", "label_a", "label_b"]
    found = [("a", "b"), ("a", "c"), ("a", "d"), ("a", "gone")]
    label = manifest.set_index("image_id")["label"]
    pairs = pd.DataFrame([(a, b, None, None, label[a], label.get(b)) for a, b in found], columns=columns)
    marked = marked_duplicates(pairs, manifest)
    assert marked[["image_id_b", "label_differs", "split_differs", "patient_id_differs"]].to_numpy().tolist() == [
        ["c", True, False, False],
        ["b", False, True, True],
        ["d", False, False, False],
    ]
    assert marked["split_b"].tolist() == ["train", "test", "train"]


def test_what_is_documented_to_be_wrong_is_told_beside_what_was_found(xrays, tmp_path, capsys):
    faults = "+data.known_issues.folder=[patients are not known]"
    prepare(composed(*SMALL, f"data.root='{xrays}'", faults), tmp_path)
    said = capsys.readouterr().out
    assert "known issue  folder: patients are not known.\n" in said
    assert "known issue" not in said.split("Images (patients)")[1]
    notes = pd.read_csv(tmp_path / "notes.csv")["note"]
    assert notes.iloc[-1] == "folder: patients are not known."
