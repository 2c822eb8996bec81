import zipfile
from pathlib import Path

import pandas as pd
import pytest

from cxrnet.data.inputs import labels_of, opened_input
from cxrnet.errors import CxrnetError

CLASSES = ("Covid", "Normal", "Viral Pneumonia")


def ids(text) -> list[str]:
    with opened_input(str(text)) as found:
        return found.manifest["image_id"].tolist()


def packed(root: Path, archive: Path, **options) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(root.rglob("*")):
            file.write(path, path.relative_to(root), **options)
    return archive


@pytest.mark.parametrize("pattern", ["{}/**/*.png", "{}/*/0?.png", "{}/*"])
def test_a_pattern_finds_files_and_folders(draw, tmp_path, pattern):
    root = draw(tmp_path / "set", images=2)
    (root / "notes.txt").write_text("no image")
    (root / "notes.txt").unlink()
    assert ids(pattern.format(root)) == ids(root)
    with pytest.raises(CxrnetError, match=r"input: nothing fits '.*\*\.tif'"):
        ids(f"{root}/**/*.tif")


def test_an_archive_is_read_as_its_folder_and_leaves_nothing(draw, tmp_path):
    root = draw(tmp_path / "set", images=2)
    (root / "notes.txt").write_text("no image")
    archive = packed(root, tmp_path / "set.zip")
    with opened_input(str(archive)) as found:
        assert found.manifest["image_id"].tolist() == ids(root)
        paths = [Path(path) for path in found.manifest["path"]]
        assert paths[0].read_bytes() == (root / found.manifest["image_id"][0]).read_bytes()
        assert found.shown(found.manifest)["path"][0] == f"{archive}/{found.manifest['image_id'][0]}"
        assert {path.suffix for path in paths[0].parents[1].rglob("*") if path.is_file()} == {".png"}
    assert not paths[0].exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../out.png", "which leads out of it"),
        ("/etc/out.png", "which leads out of it"),
        ("C:\\out.png", "which leads out of it"),
        ("bomb.png", "which unpacks to more than an image has"),
        (".", "which leads out of it"),
        ("n" * 300 + ".png", "under a name that a disk can't have"),
    ],
)
def test_an_unsafe_archive_is_refused(tmp_path, name, reason):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, bytes(20_000_000) if "bomb" in name else b"x")
    with pytest.raises(CxrnetError, match=f"^input: .*{reason}; unpack it yourself"):
        ids(tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def test_a_file_where_a_folder_is_wanted_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.png", b"x")
        file.writestr("a.png/b.png", b"x")
    with pytest.raises(CxrnetError, match=r"^input: .*'a\.png/b\.png' twice, or under a name"):
        ids(tmp_path / "a.zip")


def test_a_damaged_and_an_empty_archive_are_refused(draw, tmp_path):
    archive = packed(draw(tmp_path / "set", images=1), tmp_path / "a.zip")
    data = bytearray(archive.read_bytes())
    data[80:120] = bytes(40)
    archive.write_bytes(data)
    with pytest.raises(CxrnetError, match=r"^input: '.*a.zip' is damaged \(.*\); copy it again"):
        ids(archive)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "no image")
    with pytest.raises(CxrnetError, match=r"^input: no images below '.*a\.zip'"):
        ids(archive)


def manifest(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": names, "path": [f"/data/{name}" for name in names]}, dtype="string")


def test_labels_are_those_of_folders_and_names_that_agree():
    rows = manifest("Covid/1.png", "a/normal-2.png", "Viral Pneumonia/3.png", "Covid/normal_4.png", "covidlike.png")
    labels, origin = labels_of(rows, CLASSES, "auto")
    assert labels.fillna("none").tolist() == ["Covid", "Normal", "Viral Pneumonia", "none", "none"]
    assert "folders" in origin
    assert labels_of(rows, CLASSES, "none")[0].isna().all()


def test_labels_of_a_table_go_by_path_or_by_a_name_that_stands_once(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("Filename,Label\na/1.png,Covid\n2,Normal\n3.png,Covid\n")
    rows = manifest("a/1.png", "b/1.png", "a/2.png", "a/3.png", "b/3.png")
    labels, _ = labels_of(rows, CLASSES, str(table))
    assert labels.fillna("none").tolist() == ["Covid", "none", "Normal", "none", "none"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "can't be read"),
        ("image,finding\n1.png,Healthy\n", "names 'Healthy', which is no class of the bundle"),
        ("image,age\n1.png,3\n", "has no column label"),
        ("label\nCovid\n", "has no column image"),
        ("image,label\n1.png,Covid\n1.png,Normal\n", "names '1.png' twice"),
        ("image,label\n9.png,Covid\n", "names none of the 1 images"),
    ],
)
def test_a_table_of_labels_that_will_not_do(tmp_path, text, reason):
    table = tmp_path / "labels.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(CxrnetError, match=f"^labels: .*{reason}"):
        labels_of(manifest("1.png"), CLASSES, str(table))
