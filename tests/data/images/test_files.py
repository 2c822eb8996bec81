import os

import numpy as np
import pytest
from PIL import Image

from cxrnet.data.images.files import find_images
from cxrnet.errors import CxrnetError


def names_of(root) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_images(root).images]


def test_files_are_sorted_by_the_parts_of_their_paths(tmp_path, touch):
    assert names_of(touch(tmp_path, "b/1.png", "a b/1.PNG", "a/2.jpeg", "a/10.tif")) == [
        "a/10.tif", "a/2.jpeg", "a b/1.PNG", "b/1.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "place", ["@eaDir/1.png", "#recycle", ".thumbnails", "$RECYCLE.BIN/x", "__MACOSX", "Thumbnails", "lost+found"]
)
def test_thumbnails_and_deleted_files_are_left_out_and_counted(tmp_path, caplog, touch, place):
    assert names_of(touch(tmp_path, "a/1.png", f"a/{place}/SYNOPHOTO_THUMB_XL.jpg", "a/Thumbs.db")) == ["a/1.png"]
    assert f"left out: 1 hidden or system files ({place.split('/')[0]})" in caplog.text


@pytest.mark.parametrize("link", [False, True])
def test_pipes_are_never_opened_and_one_that_is_called_as_an_image_is_left_to_be_refused(tmp_path, caplog, touch, link):
    touch(tmp_path, "in/a.png")
    for name in ("pipe.png", "pipe", "pipe.log"):
        place = tmp_path / "in" / name
        if link:
            place.symlink_to(tmp_path / name)
        os.mkfifo(tmp_path / name if link else place)
    assert names_of(tmp_path / "in") == ["a.png", "pipe.png"]
    assert "left out: 1 without an ending, 1 .log" in caplog.text


def test_other_files_are_counted_by_their_endings(tmp_path, caplog, touch):
    names_of(touch(tmp_path, "a/1.png", "a/1.nii", "b/2.NII", "notes.txt", "b/1.2.840.113", "plain"))
    assert "left out: 2 without an ending, 2 .nii, 1 .txt" in caplog.text


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_file_without_an_ending_is_read_by_its_content(tmp_path, caplog, kind):
    for name in ("e0", "1.2.840.113"):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / name, format=kind)
    assert names_of(tmp_path) == ["1.2.840.113", "e0"]
    assert f"no ending, read by their content: 2 ('{tmp_path}/1.2.840.113'" in caplog.text


def test_only_what_has_an_image_beside_it_is_a_mask_by_its_name(tmp_path, touch):
    touch(tmp_path, "1.png", "1_mask.png", "mask_2.png", "2.jpg", "oxygen mask.png", "masked.png", "seg.png")
    found = find_images(tmp_path)
    assert [path.name for path in found.images] == ["1.png", "2.jpg", "masked.png", "oxygen mask.png", "seg.png"]
    assert [path.name for path in found.masks] == ["1_mask.png", "mask_2.png"]


@pytest.mark.parametrize(
    ("links", "images", "said"),
    [
        (
            {"a/site_b": "../../store", "a/one.png": "../../store/b1.png"},
            ["a/1.png", "a/one.png", "a/site_b/b1.png", "a/site_b/deep/b2.png", "z/2.png"],
            "left out: 1 masks",
        ),
        (
            {"a/link": "../z", "b": "z"},
            ["a/1.png", "z/2.png"],
            "that are read anyway, not followed: 2",
        ),
        ({"y": "../store", "x": "../store"}, ["a/1.png", "x/b1.png", "x/deep/b2.png", "z/2.png"], "not followed: 1"),
        ({"x": "../store", "../store/back": "../in"}, ["a/1.png", "x/b1.png", "x/deep/b2.png", "z/2.png"], "back'"),
        ({"a/gone.png": "nowhere.png"}, ["a/1.png", "z/2.png"], "links that lead nowhere, left out: 1"),
    ],
    ids=["elsewhere", "inside", "twice", "to each other", "nowhere"],
)
def test_a_linked_folder_is_read_once(tmp_path, caplog, touch, links, images, said):
    touch(tmp_path / "store", "b1.png", "deep/b2.png", "masks/b1.png")
    root = touch(tmp_path / "in", "a/1.png", "z/2.png")
    for name, target in links.items():
        (root / name).symlink_to(target)
    assert names_of(root) == images
    assert said in caplog.text


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_loop_is_told(tmp_path, touch, target):
    root = touch(tmp_path / "root", "a/1.png")
    (root / "a" / "loop").symlink_to(target)
    with pytest.raises(CxrnetError, match=rf"data.root: the link '{root}/a/loop' leads to a folder that holds it"):
        find_images(root)


def test_a_folder_that_can_not_be_read_is_named(tmp_path, monkeypatch, touch):
    """Rights don't bind who administers the machine, so there the system's answer is given in its stead."""
    root = touch(tmp_path, "a/1.png", "b/closed/2.png")
    closed = root / "b" / "closed"
    closed.chmod(0)
    scan = os.scandir

    def scandir(path):
        if os.geteuid() == 0 and str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    try:
        with pytest.raises(CxrnetError, match=rf"input: the folder '{closed}' can't be read \(Permission denied\)"):
            find_images(root, "input")
    finally:
        closed.chmod(0o755)


@pytest.mark.parametrize(("name", "read"), [(b"r\xf3.png", False), (b"r\xf3/a.png", False), (b"\xf3.txt", True)])
def test_the_name_of_an_image_is_utf8_and_what_is_left_out_may_be_called_anything(tmp_path, touch, name, read):
    try:
        touch(tmp_path, os.fsdecode(name), "a.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    if read:
        assert names_of(tmp_path) == ["a.png"]
        return
    with pytest.raises(CxrnetError, match=r"^data.root: the name of '.*r\\udcf3.*' is not UTF-8; rename it$"):
        find_images(tmp_path)
