import importlib.util
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cxrnet.errors import CxrnetError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "download.py"
RULE = "patientid,sex,age,finding,view,modality,location,folder,filename,url,license"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("download", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["download"] = module  # where dataclasses look for it
    specification.loader.exec_module(module)
    yield module
    del sys.modules["download"]


def git(folder, *command):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def address(tmp_path):
    """A repository with three images in the layout of the collection."""
    origin = tmp_path / "origin"
    (origin / "images").mkdir(parents=True)
    rows = [f"{n},,,COVID-19,PA,X-ray,,images,{n}.png,," for n in range(3)]
    (origin / "metadata.csv").write_text("\n".join([RULE, *rows]))
    for n in range(3):
        (origin / "images" / f"{n}.png").write_bytes(b"x")
    git(origin, "init")
    git(origin, "add", ".")
    git(origin, "commit", "-m", "three")
    return origin.as_uri()


def chestxray(script, address, images=3, **changes):
    fetch = partial(script.from_git, address)
    return replace(script.DATASETS["covid_chestxray"], fetch=fetch, published={"covid_chestxray": images}, **changes)


def test_a_clone_gets_its_name_when_it_was_counted(script, address, tmp_path):
    root = tmp_path / "data" / "covid_chestxray"
    assert script.download("covid_chestxray", chestxray(script, address, 2), root) == {"covid_chestxray": 3}
    assert (root / "images" / "2.png").is_file()
    assert [path.name for path in root.parent.iterdir()] == ["covid_chestxray"]


@pytest.mark.parametrize(("images", "grows"), [(4, True), (4, False), (2, False)])
def test_wrong_counts_leave_nothing(script, address, tmp_path, images, grows):
    root = tmp_path / "data" / "covid_chestxray"
    with pytest.raises(CxrnetError, match=f"3 images of covid_chestxray came but {images} are published"):
        script.download("covid_chestxray", chestxray(script, address, images, grows=grows), root)
    assert not list(root.parent.iterdir())


def test_another_layout_leaves_nothing(script, address, tmp_path):
    root = tmp_path / "data" / "other"
    with pytest.raises(CxrnetError, match="COVID-19 Image Dataset is not at"):
        script.download("covid19_image", chestxray(script, address), root)
    assert not list(root.parent.iterdir())


def test_a_folder_of_the_user_beside_it_is_left_alone(script, address, tmp_path):
    theirs = tmp_path / "covid_chestxray.partial" / "notes.txt"
    theirs.parent.mkdir()
    theirs.touch()
    script.download("covid_chestxray", chestxray(script, address), tmp_path / "covid_chestxray")
    assert {path.name for path in tmp_path.iterdir()} == {"covid_chestxray", "covid_chestxray.partial", "origin"}
    assert theirs.exists()


def test_an_existing_folder_is_left_as_it_is(script, address, tmp_path):
    root = tmp_path / "mine"
    root.mkdir()
    (root / "work.txt").write_text("mine")
    with pytest.raises(CxrnetError, match="exists and is left as it is; remove it first, or give another --root"):
        script.download("covid_chestxray", chestxray(script, address), root)
    assert (root / "work.txt").read_text() == "mine"


def test_a_repository_that_does_not_exist(script, tmp_path, capsys, monkeypatch):
    """The whole command: one line says what failed, one how to go on; exit status 2."""
    address = (tmp_path / "gone.git").as_uri()
    monkeypatch.setitem(script.DATASETS, "covid_chestxray", chestxray(script, address))
    assert script.main(["covid_chestxray", "--root", str(tmp_path / "data")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: covid_chestxray: git could not clone {address} (")
    assert "gone.git" in first
    assert second.startswith(f"by hand: get it from {script.GITHUB} and put it at '{tmp_path / 'data'}'")
    assert not list(tmp_path.iterdir())


def test_no_git(script, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CxrnetError, match="git is not installed"):
        script.from_git("file:///gone", tmp_path / "a")


def test_no_kagglehub(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert script.main(["covid19_radiography", "--root", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert 'pip install "cxrnet[download]"' in error
    assert "kaggle.com/datasets/tawsifurrahman/covid19-radiography-database" in error
    assert len(error.splitlines()) == 2
    assert not list(tmp_path.iterdir())


def test_kaggle_refuses(script, tmp_path, monkeypatch):
    """No account and no network alike: the line of Kaggle's client stands in ours."""
    (tmp_path / "kagglehub.py").write_text(
        "def dataset_download(handle, *, output_dir):\n    raise ValueError(f'no account\\nfor {handle}')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kagglehub", raising=False)
    with pytest.raises(CxrnetError, match=r"Kaggle did not give a/b \(no account\)"):
        script.from_kaggle("a/b", tmp_path / "x")
    monkeypatch.delitem(sys.modules, "kagglehub")


@pytest.mark.shared
def test_the_published_numbers_are_those_of_the_readers(script, shared):
    data = shared / "data"
    image, chest = script.DATASETS["covid19_image"], script.DATASETS["covid_chestxray"]
    assert script.count("covid19_image", image, data / "covid19_image") == {"train": 251, "test": 66}
    assert script.count("covid_chestxray", chest, data / "covid_chestxray") == {"covid_chestxray": 495}
    with pytest.raises(CxrnetError, match="lacks COVID/masks"):
        script.count("covid19_radiography", script.DATASETS["covid19_radiography"], data / "covid19_radiography")


def test_help_answers(script):
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    for name in ("covid19_image", "covid19_radiography", "covid_chestxray", "--root"):
        assert name in done.stdout
