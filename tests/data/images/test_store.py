import contextlib
import io
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
import pytest
from PIL import Image

from cxrnet.core.process import keep_freed_memory
from cxrnet.data.images import reader, store
from cxrnet.data.images.decode import read_image
from cxrnet.data.images.store import load_at_sizes, load_images
from cxrnet.data.manifest import make_manifest
from cxrnet.errors import CxrnetError

GREY = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2  # (40, 60), 0..196


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def manifest_of(folder: Path, files: dict[str, bytes | None]) -> pd.DataFrame:
    for name, data in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
    rows = {"image_id": list(files), "path": [str(folder / name) for name in files], "label": "a", "source": "s"}
    return make_manifest(pd.DataFrame(rows), "test")


def numbered(folder: Path, count: int) -> pd.DataFrame:
    """Image i is i + 1 high, 9 wide, and of grey value i."""
    folder.mkdir(exist_ok=True)
    return manifest_of(folder, {f"{i:03d}.png": encoded(np.full((1 + i, 9), i, np.uint8)) for i in range(count)})


def stores(cache: Path) -> list[Path]:
    return [path for path in (cache / "images").iterdir() if path.is_dir()]


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path) -> Path | None:
    return tmp_path / "cache" if request.param == "disk" else None


def test_the_manifest_is_filled_and_each_size_lies_in_the_order_of_its_rows(tmp_path, cache):
    manifest = numbered(tmp_path / "in", 30).iloc[::-1]
    loaded, (large, small) = load_at_sizes(manifest, [((6, 5), "stretch"), ((2, 2), "pad")], "fail", cache)
    assert loaded["image_id"].tolist() == manifest["image_id"].tolist()
    assert large[:][:, 0, 0].tolist() == list(range(30))[::-1]
    assert (large.shape, small.shape) == ((30, 6, 5), (30, 2, 2))
    assert loaded["height"].tolist() == list(range(1, 31))[::-1]
    assert loaded["width"].eq(9).all()
    assert loaded["sha256"].str.len().eq(64).all()
    assert loaded["sha256"].nunique() == 30
    assert manifest["sha256"].isna().all()


def bad_files(folder: Path) -> pd.DataFrame:
    good = encoded(GREY)
    files = {f"good{i}.png": good for i in range(3)}
    files |= {"empty.png": b"", "text.png": b"hello", "cut.png": good[: len(good) // 2], "gone.png": None}
    files |= {"hot.tif": encoded(np.full((4, 4), np.inf, np.float32), "TIFF")}
    files |= {f"text{i}.jpg": b"hello" for i in range(7)}
    return manifest_of(folder, files)


def test_fail_names_the_first_ten_files_and_counts_all_by_kind(tmp_path, cache):
    with pytest.raises(
        CxrnetError, match=r"12 of 15 files give no image [^\n]* and 2 more; [^\n]*data.on_error=skip"
    ) as caught:
        load_images(bad_files(tmp_path), (8, 8), "pad", "fail", cache)
    message = str(caught.value)
    assert "(1 empty, 1 missing, 8 not an image, 1 not finite, 1 truncated)" in message
    assert "gone.png' (missing)" in message
    assert message.count(".png' (") + message.count(".jpg' (") + message.count(".tif' (") == 10


def test_skip_leaves_bad_files_out_and_warns_once(tmp_path, cache, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded, images = load_images(bad_files(tmp_path), (8, 8), "pad", "skip", cache)
    assert loaded["image_id"].tolist() == ["good0.png", "good1.png", "good2.png"]
    assert images.shape == (3, 8, 8)
    assert loaded.index.tolist() == [0, 1, 2]
    (record,) = caplog.records
    assert "12 of 15 files" in record.getMessage()


@pytest.mark.parametrize(
    ("size", "rule", "on_error", "message"),
    [
        ((8, 8), "pad", "ignore", "data.on_error: 'ignore' is not known; use fail or skip"),
        ((8, 8), "squash", "fail", "data.resize: 'squash' is not known; use stretch, pad, crop"),
        ((0, 8), "pad", "fail", r"data.size: \(0, 8\) is not a size"),
    ],
)
def test_unknown_settings(tmp_path, size, rule, on_error, message):
    with pytest.raises(CxrnetError, match=message):
        load_images(manifest_of(tmp_path, {"a.png": encoded(GREY)}), size, rule, on_error)


@pytest.fixture
def no_file_is_read(monkeypatch):
    """From when it is called on, reading any file fails the test."""

    def refuse(path: str) -> bytes:
        pytest.fail(f"'{path}' was read again")

    return lambda: monkeypatch.setattr(reader, "_read_bytes", refuse)


def test_images_on_disk_are_those_in_memory_and_not_read_twice(tmp_path, no_file_is_read):
    manifest = numbered(tmp_path / "in", 30)
    _, memory = load_images(manifest, (6, 5), "stretch", "fail")
    first, _ = load_images(manifest, (6, 5), "stretch", "fail", tmp_path / "cache")
    no_file_is_read()
    second, images = load_images(manifest, (6, 5), "stretch", "fail", tmp_path / "cache")
    assert np.array_equal(images[:], memory[:])
    assert isinstance(images.array, np.memmap)
    assert not images.array.flags.writeable
    pd.testing.assert_frame_equal(first, second)


def test_a_disk_that_fails_for_a_moment_leaves_no_mark(tmp_path, monkeypatch):
    manifest, cache = numbered(tmp_path / "in", 5), tmp_path / "cache"
    whole = Path.read_bytes

    def fails_once(path: Path) -> bytes:
        if path.name == "003.png":
            raise OSError(5, "Input/output error")
        return whole(path)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", fails_once)
        with pytest.raises(CxrnetError, match=r"1 of 5 files are there and gave nothing .*003.png.* start again"):
            load_images(manifest, (6, 5), "stretch", "skip", cache)
    loaded, _ = load_images(manifest, (6, 5), "stretch", "skip", cache)
    assert len(loaded) == 5


def test_what_the_disk_did_not_take_does_not_count_as_read(tmp_path, monkeypatch):
    manifest, cache = numbered(tmp_path / "in", 5), tmp_path / "cache"

    def fails(array: np.memmap) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(store, "wait_for_disk", fails)
        with pytest.raises(CxrnetError, match=r"cache: .* can't be written \(Input/output error\)"):
            load_images(manifest, (6, 5), "stretch", "fail", cache)
    (facts,) = (cache / "images").glob("*.partial/facts.npy")
    assert not np.load(facts)["read"].any()
    loaded, _ = load_images(manifest, (6, 5), "stretch", "fail", cache)
    assert len(loaded) == 5


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("odd", ["pipe", "/dev/zero", "/dev/null", "socket"])
def test_pipes_and_devices_are_refused_and_never_waited_for(tmp_path, cache, odd, link):
    manifest = numbered(tmp_path / "in", 3)
    place = tmp_path / "odd.png"
    with contextlib.ExitStack() as held:
        if odd == "pipe":
            os.mkfifo(place)
        elif odd == "socket":
            held.enter_context(socket.socket(socket.AF_UNIX)).bind(str(place))
        elif not Path(odd).exists():
            pytest.skip("no such device here")
        else:
            place = Path(odd)
        if link:
            place = tmp_path / "link.png"
            place.symlink_to(tmp_path / "odd.png" if odd in ("pipe", "socket") else odd)
        manifest.loc[1, "path"] = str(place)
        with pytest.raises(CxrnetError, match=rf"1 of 3 files give no image .1 not a file.: '{place}' .*on_error=skip"):
            load_images(manifest, (6, 5), "stretch", "fail", cache)
        loaded, _ = load_images(manifest, (6, 5), "stretch", "skip", cache)
    assert loaded["image_id"].tolist() == ["000.png", "002.png"]


@pytest.mark.parametrize("odd", ["a folder", "a name that is too long", "a NUL"])
def test_a_path_that_is_no_file_is_left_out_where_bad_ones_are(tmp_path, cache, odd):
    manifest = numbered(tmp_path / "in", 3)
    if odd == "a folder":
        Path(manifest["path"][1]).unlink()
        Path(manifest["path"][1]).mkdir()
    else:
        manifest.loc[1, "path"] = "a\0b.png" if odd == "a NUL" else str(tmp_path / ("x" * 300 + ".png"))
    with pytest.raises(CxrnetError, match=r"1 of 3 files give no image .1 (missing|not a file)"):
        load_images(manifest, (6, 5), "stretch", "fail", cache)
    loaded, _ = load_images(manifest, (6, 5), "stretch", "skip", cache)
    assert loaded["image_id"].tolist() == ["000.png", "002.png"]


def test_other_sizes_rules_versions_and_changed_files_are_read_anew(tmp_path, monkeypatch):
    manifest, cache = numbered(tmp_path / "in", 5), tmp_path / "cache"
    load_images(manifest, (6, 5), "stretch", "fail", cache)
    load_images(manifest, (6, 5), "pad", "fail", cache)
    load_images(manifest, (5, 6), "pad", "fail", cache)
    Path(manifest["path"][2]).write_bytes(encoded(np.full((50, 9), 200, np.uint8)))
    changed, images = load_images(manifest, (6, 5), "stretch", "fail", cache)
    assert images[[2]].max() == 200
    assert changed["height"][2] == 50
    monkeypatch.setattr(PIL, "__version__", "another")
    load_images(manifest, (6, 5), "stretch", "fail", cache)
    assert len(stores(cache)) == 5


def test_a_file_copied_over_another_is_read_anew_though_length_and_time_of_change_are_the_same(tmp_path):
    manifest = manifest_of(tmp_path, {"a.bmp": encoded(GREY, "BMP")})
    path, cache = Path(manifest["path"][0]), tmp_path / "cache"
    before, stat = load_images(manifest, (40, 60), "stretch", "fail", cache)[0], path.stat()
    path.write_bytes(encoded(255 - GREY, "BMP"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after, images = load_images(manifest, (40, 60), "stretch", "fail", cache)
    assert np.array_equal(images[[0]][0], 255 - GREY)
    assert after["sha256"][0] != before["sha256"][0]


def test_what_failed_is_told_again_and_skipped_without_reading(tmp_path, no_file_is_read):
    manifest, cache = bad_files(tmp_path), tmp_path / "cache"
    for _ in range(2):
        with pytest.raises(CxrnetError, match="12 of 15 files give no image"):
            load_images(manifest, (8, 8), "pad", "fail", cache)
    no_file_is_read()
    loaded, images = load_images(manifest, (8, 8), "pad", "skip", cache)
    assert loaded["image_id"].tolist() == ["good0.png", "good1.png", "good2.png"]
    assert images[:].std() > 10


def read_all(manifest: pd.DataFrame, cache: Path, found) -> None:
    """What a process of its own does; images that need no resizing, as forked processes may not use OpenMP."""
    read, files = reader._read_bytes, []
    reader._read_bytes = lambda path: files.append(path) or read(path)
    _, images = load_images(manifest, (64, 64), "stretch", "fail", cache)
    found.put((len(images), int(images[:].astype(int).sum()), len(files)))


def test_of_two_readers_one_waits_and_goes_on_where_the_other_was_killed(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    data = [encoded(rng.integers(0, 255, (64, 64), np.uint8)) for _ in range(8)]
    manifest = manifest_of(tmp_path / "in", {f"{i:05d}.png": data[i % 8] for i in range(2000)})
    fork, cache, facts = multiprocessing.get_context("fork"), tmp_path / "cache", None
    found = fork.SimpleQueue()
    first, second = (fork.Process(target=read_all, args=(manifest, cache, found)) for _ in range(2))
    first.start()
    while facts is None or not np.load(facts, mmap_mode="r")["read"].any():
        assert first.is_alive()
        facts = next((cache / "images").glob("*.partial/facts.npy"), None)
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGSTOP)  # or it would be done before the second one has begun
    second.start()
    second.join(0.5)
    assert second.is_alive()  # it waits
    first.kill()
    read = int(np.load(facts, mmap_mode="r")["read"].sum())
    assert 0 < read < 2000
    grey = 250 * sum(int(read_image(each, "").astype(int).sum()) for each in data)
    assert found.get() == (2000, grey, 2000 - read)
    second.join()
    (store,) = stores(tmp_path / "cache")
    assert json.loads((store / "bad.json").read_text()) == {}


@pytest.mark.parametrize("fault", ["a pixel", "a width", "a shape", "cut", "cut facts", "garbage", "no array"])
def test_what_a_reader_that_died_left_is_read_again_where_it_is_damaged(tmp_path, caplog, fault):
    manifest, cache = numbered(tmp_path / "in", 5), tmp_path / "cache"
    expected, memory = load_images(manifest, (6, 5), "stretch", "fail")
    load_images(manifest, (6, 5), "stretch", "fail", cache)
    (folder,) = stores(cache)
    left = folder.rename(folder.with_name(f"{folder.name}.partial"))
    pixels, facts = left / "0.npy", left / "facts.npy"
    if fault == "a pixel":
        np.load(pixels, mmap_mode="r+")[3, 2, 2] ^= 4
    elif fault == "a width":
        np.load(facts, mmap_mode="r+")["width"][3] ^= 4
    elif fault == "a shape":
        np.save(pixels, np.zeros((4, 6, 5), np.uint8))
    elif fault == "no array":
        pixels.unlink()
    elif fault == "garbage":
        pixels.write_bytes(b"\x93NUMPY" + bytes(100))
    else:
        file = facts if "facts" in fault else pixels
        os.truncate(file, file.stat().st_size - 40)
    loaded, images = load_images(manifest, (6, 5), "stretch", "fail", cache)
    assert np.array_equal(images[:], memory[:])
    pd.testing.assert_frame_equal(loaded, expected)
    assert len(caplog.records) == 1


@pytest.mark.shared
def test_real_files_of_every_kind(shared):
    folder = shared / "data" / "covid_chestxray" / "images"
    kinds = {"P": 3, "RGBA": 82, "png called jpg": 17}
    seen = dict.fromkeys(kinds, 0)
    for path in folder.iterdir():
        with Image.open(path) as image:
            mode, size, kind = image.mode, image.size, image.format
        found = {mode} | ({"png called jpg"} if path.suffix.lower() in (".jpg", ".jpeg") and kind == "PNG" else set())
        for name in found & set(kinds):
            seen[name] += 1
            read = read_image(path.read_bytes(), path.name)
            assert read.shape == size[::-1]
            assert read.std() > 10
    assert seen == kinds


def fill(manifest: pd.DataFrame, cache: Path, most) -> None:
    """Tell the most anonymous memory in bytes while so many images are read into a store and handed out."""
    keep_freed_memory()  # as every command does
    stopped, held = threading.Event(), []

    def watch() -> None:
        while not stopped.wait(0.002):
            held.append(int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024)

    watching = threading.Thread(target=watch, daemon=True)  # a mistake below is no endless wait
    watching.start()
    for number in (600, 2400):  # both over a block
        held.clear()
        rows = manifest.iloc[np.arange(number) % len(manifest)]
        _, images = load_images(rows, (224, 224), "stretch", "fail", cache)
        for start in range(0, number, 32):
            images[start : start + 32]
        most.put(max(held))
    stopped.set()
    watching.join()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous memory from pages of mapped files")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    rng = np.random.default_rng(0)
    files = {f"{i}.jpg": encoded(rng.integers(0, 255, (224, 224), np.uint8), "JPEG") for i in range(8)}
    fork = multiprocessing.get_context("fork")
    most = fork.SimpleQueue()
    filling = fork.Process(target=fill, args=(manifest_of(tmp_path, files), tmp_path / "cache", most))
    filling.start()
    filling.join()
    assert filling.exitcode == 0
    few, many = most.get(), most.get()
    assert many - few < 16e6  # the images themselves have become 90 MB more
