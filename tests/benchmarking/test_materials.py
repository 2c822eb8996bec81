from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrnet.benchmarking import materials
from cxrnet.benchmarking.materials import labelled_images, many_images
from cxrnet.data.duplicates.search import find_duplicates
from cxrnet.data.images.files import find_images
from cxrnet.data.images.store import load_images
from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError


def test_phantoms_are_laid_out_for_every_program_and_drawn_once(tmp_path):
    root = labelled_images(tmp_path, None, 24, 64, seed=0)
    splits = folder(root)["split"].value_counts()
    assert abs(splits["train"] - 24) <= 5  # patients of up to four images stay together
    assert splits.sum() == 30
    before = {file: file.stat().st_mtime_ns for file in find_images(root).images}
    assert labelled_images(tmp_path, None, 24, 64, seed=0) == root
    assert {file: file.stat().st_mtime_ns for file in find_images(root).images} == before


def test_own_images_are_split_unless_they_are_published_so(tmp_path, draw):
    draw(tmp_path / "flat", images=10)
    splits = folder(labelled_images(tmp_path, str(tmp_path / "flat"), 1, 64, seed=0))["split"].value_counts()
    assert splits.to_dict() == {"train": 24, "val": 6}
    draw(tmp_path / "published" / "train", images=5)
    draw(tmp_path / "published" / "test", images=2)
    splits = folder(labelled_images(tmp_path, str(tmp_path / "published"), 1, 64, seed=0))["split"].value_counts()
    assert splits.to_dict() == {"train": 15, "val": 6}


def test_one_class_is_refused(tmp_path, draw):
    draw(tmp_path / "set" / "train", classes=("sick",))
    with pytest.raises(CxrnetError, match=r"data.root: .* holds one class \('sick'\); give a folder"):
        labelled_images(tmp_path, str(tmp_path / "set"), 1, 64, seed=0)


def test_mixtures_are_as_many_as_asked_for_and_no_copies(tmp_path):
    manifest = folder(many_images(tmp_path, 48, 64, seed=0))
    assert manifest["split"].value_counts().to_dict() == {"train": 48, "val": 12}
    assert manifest.groupby("split")["label"].nunique().to_dict() == {"train": 4, "val": 4}
    assert np.asarray(Image.open(manifest["path"][0])).shape == (64, 64)
    manifest, pictures = load_images(manifest, (64, 64), "stretch", "fail")
    assert len(find_duplicates(pictures, manifest)) == 0


def test_files_of_the_user_stay_as_they_are(tmp_path, draw):
    draw(tmp_path / "own", images=4)
    before = [path.stat() for path in find_images(tmp_path / "own").images]
    laid = find_images(labelled_images(tmp_path, str(tmp_path / "own"), 1, 64, seed=0)).images
    assert len(laid) == len(before) == 12
    assert [path.stat() for path in find_images(tmp_path / "own").images] == before


def test_a_copy_that_was_cut_short_is_made_again(tmp_path, draw, monkeypatch):
    def no_links(*_args: object) -> None:
        raise OSError("no links here")

    def half(source: object, target: Path) -> None:
        target.write_bytes(Path(source).read_bytes()[:50])
        raise KeyboardInterrupt

    draw(tmp_path / "own", images=4)
    whole = {path.read_bytes() for path in find_images(tmp_path / "own").images}
    monkeypatch.setattr(Path, "symlink_to", no_links)
    with monkeypatch.context() as patch:
        patch.setattr(materials.shutil, "copyfile", half)
        with pytest.raises(KeyboardInterrupt):
            labelled_images(tmp_path, str(tmp_path / "own"), 1, 64, seed=0)
    assert find_images(tmp_path / "own images").images == []
    laid = find_images(labelled_images(tmp_path, str(tmp_path / "own"), 1, 64, seed=0)).images
    assert {path.read_bytes() for path in laid} == whole
    assert len(laid) == len([path for path in (tmp_path / "own images").rglob("*") if path.is_file()]) == 12
