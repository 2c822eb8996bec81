"""The options of conf/data read what their pages say, as composed and instantiated by the commands."""

import inspect
import shlex

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from cxrnet.cli.app import config_folder
from cxrnet.data.datamodule import XrayDataModule

PAGE = config_folder().parent / "data" / "README.md"
COMMAND = "    python -m cxrnet.train "
COMMANDS = [line.removeprefix(COMMAND) for line in PAGE.read_text().splitlines() if line.startswith(COMMAND)]
COLUMNS = "patientid,sex,age,finding,view,modality,location,folder,filename,url,license"


def images(root, *names):
    """Grey images that differ enough not to count as duplicates."""
    for n, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 40 + n).save(path)
    return root


def composed(*overrides):
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return OmegaConf.to_container(compose("train", [*overrides]), resolve=True)["data"]


def data_of(*overrides):
    plain = composed(*overrides, "data.size=[32,32]", "augment=none")
    return instantiate({name: value for name, value in plain.items() if name != "root"})


def ready(*overrides):
    data = data_of(*overrides)
    assert isinstance(data, XrayDataModule)
    data.setup()
    return data


def make_covid_chestxray(root):
    findings = ["COVID-19", "SARS"] * 6
    names = [f"{n}.png" for n in range(12)]
    rows = [f"{n},,,{finding},PA,X-ray,,images,{n}.png,," for n, finding in enumerate(findings)]
    images(root / "images", *names)
    (root / "metadata.csv").write_text("\n".join([COLUMNS, *rows]))
    return root


def make_covid19_radiography(root, classes=("COVID", "Normal")):
    top = root / "COVID-19_Radiography_Dataset"
    return images(root, *[top / name / "images" / f"{name}-{n}.png" for name in classes for n in range(8)])


def test_covid_chestxray(tmp_path):
    root = make_covid_chestxray(tmp_path)
    data = ready("data=covid_chestxray", f"data.root={root}")
    assert data.classes == ("non_covid", "covid")
    assert set(data.manifest["split"]) == {"train", "val", "test"}
    other = ["data.manifest.findings.non_covid=[]", "+data.manifest.findings.sars=[SARS]", "data.classes=[sars,covid]"]
    assert ready("data=covid_chestxray", f"data.root={root}", *other).classes == ("sars", "covid")


def test_covid19_radiography(tmp_path):
    root = make_covid19_radiography(tmp_path)
    partial = ["data=covid19_radiography", f"data.root={root}", "data.manifest.partial=true"]
    assert ready(*partial).counts("test") == [1, 1]
    assert set(data_of(*partial, "data.manifest.classes=[COVID]")._manifest()["label"]) == {"COVID"}


def test_labelled_names(tmp_path):
    names = [f"{part}/{label}_{n}.png" for part in ("train", "test", "predict") for label in ("covid", "normal")
             for n in range(2)]  # fmt: skip
    data = ready("data=labelled_names", f"data.root={images(tmp_path, *names)}")
    assert data.classes == ("normal", "covid")
    assert [data.counts(split) for split in ("train", "val", "test")] == [[2, 2]] * 3
    drawn = data_of("data=labelled_names", f"data.root={tmp_path}", "data.manifest.folders=null")
    assert drawn._manifest()["split"].isna().all()


def test_merged(tmp_path):
    make_covid_chestxray(tmp_path / "covid_chestxray")
    make_covid19_radiography(tmp_path / "covid19_radiography")
    partial = "data.manifest.parts.covid19_radiography.manifest.partial=true"
    data = ready("data=merged", f"data.root={tmp_path}", partial)
    assert data.classes == ("normal", "covid")
    assert data.manifest["label"].value_counts().to_dict() == {"covid": 6, "normal": 6}
    assert set(data.manifest["source"]) == {"covid_chestxray", "covid19_radiography"}
    assert len(ready("data=merged", f"data.root={tmp_path}", partial, "data.manifest.per_class=4").manifest) == 8


def test_manifest(tmp_path):
    names = [f"{n}.png" for n in range(12)]
    images(tmp_path, *names)
    table = pd.DataFrame({"path": names, "label": ["sick", "well"] * 6, "patient_id": [f"{n // 2}" for n in range(12)]})
    table.to_csv(tmp_path / "mine.csv", index=False)
    data = ready("data=manifest", f"data.root={tmp_path / 'mine.csv'}")
    assert data.classes == ("sick", "well")
    assert data.manifest.groupby("patient_id")["split"].nunique().eq(1).all()


@pytest.mark.shared
def test_merged_of_the_real_collections(shared):
    partial = "data.manifest.parts.covid19_radiography.manifest.partial=true"
    manifest = data_of("data=merged", f"data.root={shared / 'data'}", partial)._manifest()
    assert manifest["label"].value_counts().to_dict() == {"covid": 396, "normal": 396}
    assert manifest.loc[manifest["label"] == "covid", "patient_id"].str.startswith("covid_chestxray/").all()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_give_a_reader_what_it_takes(command):
    reader = instantiate(composed(*shlex.split(command, comments=True))["manifest"])
    inspect.signature(reader).bind()


def test_a_default_part_can_be_dropped():
    assert list(composed("data=merged", "~data.manifest.parts.covid19_radiography")["manifest"]["parts"]) == [
        "covid_chestxray"
    ]


def test_every_option_stands_on_the_page():
    options = {path.stem for path in (config_folder() / "data").glob("[!_]*.yaml")}
    assert {option for option in options if f"[`data={option}`](#" in PAGE.read_text()} == options
