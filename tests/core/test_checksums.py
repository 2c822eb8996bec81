"""Damage to a cache: the same result as before, and one line."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.core import cache as module
from cxrnet.core.cache import CHECKSUMS, damage, kept, write_checksums
from cxrnet.data.images.store import load_at_sizes
from cxrnet.data.manifest import make_manifest
from cxrnet.errors import CxrnetError


def flip(file: Path, place: int) -> None:
    """Turn one bit of a file."""
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(data)


def largest(folder: Path) -> Path:
    return max(folder.glob("*.np*"), key=lambda file: file.stat().st_size)


def into_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def into_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("in the way")


def of_another(folder: Path) -> None:
    note = json.loads((folder / CHECKSUMS).read_text())
    (folder / CHECKSUMS).write_text(json.dumps({**note, "of": "another"}))


FAULTS: dict[str, Callable[[Path], object]] = {
    "a bit in the middle": lambda folder: flip(largest(folder), largest(folder).stat().st_size // 2),
    "cut to half": lambda folder: os.truncate(largest(folder), largest(folder).stat().st_size // 2),
    "too long": lambda folder: os.truncate(largest(folder), largest(folder).stat().st_size + 1),
    "a missing file": lambda folder: largest(folder).unlink(),
    "a file that is a pipe": lambda folder: into_a_pipe(largest(folder)),
    "an empty folder": empty_folder,
    "a file in its place": into_a_file,
    "no checksums": lambda folder: (folder / CHECKSUMS).unlink(),
    "checksums that are garbage": lambda folder: (folder / CHECKSUMS).write_bytes(b"\xff\x00{"),
    "a bit of the checksums": lambda folder: flip(folder / CHECKSUMS, -20),
    "the folder of another result": of_another,
}


@pytest.fixture
def manifest(tmp_path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    rows = []
    for place in range(6):
        path = tmp_path / "in" / f"{place}.png"
        Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(path)
        rows.append({"image_id": path.name, "path": str(path), "label": "ab"[place % 2], "source": "s"})
    return make_manifest(pd.DataFrame(rows), "test")


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_damaged_is_made_anew_with_one_line(manifest, tmp_path, caplog, fault):
    def result() -> list[np.ndarray]:
        loaded, read = load_at_sizes(manifest, [((9, 8), "pad"), ((2, 2), "stretch")], "fail", tmp_path / "cache")
        return [*(each[:] for each in read), loaded["sha256"].to_numpy(object), loaded["width"].to_numpy(int)]

    before = result()
    (folder,) = [path for path in (tmp_path / "cache").glob("*/*") if path.is_dir()]
    FAULTS[fault](folder)
    with caplog.at_level(logging.WARNING, "cxrnet"):
        again = result()
        assert [record.getMessage().count("\n") for record in caplog.records] == [0]
        assert str(folder) in caplog.text
        assert "anew" in caplog.text
        assert all(np.array_equal(one, other) for one, other in zip(before, again, strict=True))
        result()  # is whole now
    assert len(caplog.records) == 1


def test_a_bit_is_found_wherever_it_is_and_the_line_says_where(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_TOGETHER", 2)
    (tmp_path / "below").mkdir()
    file = tmp_path / "below" / "file"
    file.write_bytes(bytes(range(40)))
    (tmp_path / "empty").touch()
    write_checksums(tmp_path, tmp_path.name)
    assert damage(tmp_path) is None
    for place in range(40):
        flip(file, place)
        assert damage(tmp_path) == f"'{file}' has changed in its MiB {place // 7 + 1}"
        flip(file, place)
    assert damage(tmp_path) is None


def test_a_result_that_was_moved_under_another_name_is_not_used(tmp_path):
    made = []
    for name in ("a", "b"):
        kept(tmp_path / name, lambda folder: (folder / "file").write_text("text") and None)
    shutil.rmtree(tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    kept(tmp_path / "b", made.append)
    assert len(made) == 1


def write(folder: Path) -> None:
    (folder / "file").write_text("whole")


def test_who_reads_a_damaged_file_that_is_replaced_goes_on_with_it(tmp_path):
    def numbers(folder: Path) -> None:
        np.save(folder / "a.npy", np.arange(1000))

    array = np.load(kept(tmp_path / "key", numbers) / "a.npy", mmap_mode="r")
    (tmp_path / "key" / CHECKSUMS).unlink()
    kept(tmp_path / "key", numbers)
    assert array.tolist() == list(range(1000))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_that_can_only_be_read(tmp_path, damaged):
    folder = kept(tmp_path / "cache" / "key", write)
    if damaged:
        flip(folder / "file", 0)
    for place in (folder, folder.parent):
        place.chmod(0o500)
    try:
        if damaged:
            with pytest.raises(CxrnetError, match=r"file' has changed in its MiB 1, and '.*key' can't be written"):
                kept(folder, write)
        else:
            assert kept(folder, lambda _: pytest.fail("made again")) == folder
    finally:
        for place in (folder.parent, folder):
            place.chmod(0o700)
