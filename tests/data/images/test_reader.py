import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from cxrnet.data.images import reader
from cxrnet.data.images.decode import read_image
from cxrnet.data.images.reader import (
    Budget,
    binary_warning,
    look_binary,
    one_ahead,
    read_into,
    report_bad,
    stream_images,
)
from cxrnet.data.images.resize import resize, resize_all
from cxrnet.errors import CxrnetError

SHAPES = ((30, 20), (30, 20), (17, 40), (30, 20), (8, 8), (17, 40))
SIZES = [((12, 9), "stretch"), ((5, 5), "pad")]
SIX = [((6, 6), "stretch")]


@pytest.fixture
def paths(tmp_path) -> list[str]:
    """Eighty files of three sizes in turn, of which the eighth is none."""
    random = np.random.default_rng(0)
    for place in range(80):
        image = random.integers(0, 256, SHAPES[place % len(SHAPES)]).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / f"{place:02d}.png")
    (tmp_path / "07.png").write_bytes(b"nothing")
    return [str(path) for path in sorted(tmp_path.iterdir())]


def empty(sizes=SIZES) -> list[np.ndarray]:
    return [np.zeros((80, *size), np.uint8) for size, _ in sizes]


@pytest.mark.parametrize(
    "limits",
    [{}, {"_PIXELS": 1500}, {"_LARGE": 10, "_MEMORY": 2000, "MAX_MEMORY": 6000}],
    ids=["all at once", "few at a time", "waiting for memory"],
)
@pytest.mark.parametrize("processors", [1, 3])
def test_each_image_comes_to_its_row_as_if_it_were_read_alone(paths, monkeypatch, limits, processors):
    for name, limit in limits.items():
        monkeypatch.setattr(reader, name, limit)
    monkeypatch.setattr(reader, "processors", lambda: processors)
    rows = np.random.default_rng(1).permutation(80)[:70].tolist()
    rows = [*rows, *({7} - set(rows))]
    arrays = empty()
    facts, bad = read_into(arrays, rows, paths, SIZES)
    assert bad == {7: "not an image"}
    assert facts["read"].tolist() == [row != 7 for row in rows]
    for place, row in enumerate(rows):
        if row == 7:
            continue
        original = read_image(Path(paths[row]).read_bytes(), paths[row])
        assert (facts["height"][place], facts["width"][place]) == original.shape
        for array, (size, rule) in zip(arrays, SIZES, strict=True):
            np.testing.assert_array_equal(array[row], resize(original, size, rule))
    left = [7, *(row for row in range(80) if row not in rows)]
    assert not any(array[left].any() for array in arrays)


def test_large_images_do_not_wait_for_each_other(paths, monkeypatch):
    """Or the memory that is needed would grow with their size."""
    most = []
    resize_into = reader._resize_into
    monkeypatch.setattr(reader, "_PIXELS", 500)
    monkeypatch.setattr(reader, "_resize_into", lambda *words: most.append(len(words[1])) or resize_into(*words))
    read_into(empty(SIX), range(80), paths, SIX)
    assert max(most) <= 2  # of 64 pixels at least one, and one that is larger


def test_what_breaks_one_thread_ends_the_others(paths, monkeypatch):
    """Ctrl-C comes into the thread that waits, and files may take seconds each."""
    begun = []

    def read(path: str) -> bytes:
        begun.append(path)
        if path == paths[0]:
            raise MemoryError
        return Path(path).read_bytes()

    monkeypatch.setattr(reader, "_read_bytes", read)
    monkeypatch.setattr(reader, "processors", lambda: 1)
    with pytest.raises(MemoryError):
        read_into(empty(SIX), range(80), paths, SIX)
    assert len(begun) < 40


def test_files_are_left_unread_once_nobody_wants_them(paths):
    asked = iter([False, False, False])
    facts, bad = read_into(empty(SIX), range(10), paths, SIX, lambda: next(asked, True))
    assert facts["read"].sum() == 3
    assert not bad


def test_a_huge_file_is_refused_without_reading_it(tmp_path, monkeypatch):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2_000_000_000)  # takes no room on the disk
    monkeypatch.setattr(reader, "_read_bytes", None)
    assert read_into(empty(SIX), [0], [str(tmp_path / "huge.png")], SIX)[1] == {0: "too much memory"}


LARGE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from cxrnet.data.images import reader

file = Path(sys.argv[1], "large.png")
Image.new("RGBA", (3000, 3000), (100, 0, 0, 200)).save(file, compress_level=1)
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3
reader.processors = lambda: 64  # which must not raise it
reader._MEMORY = reader.MAX_MEMORY = 10_000_000  # so that 9 million pixels are large
most = []
for number in (1, 4):
    reader.read_into([np.zeros((4, 8, 8), np.uint8)], range(number), [str(file)] * number, [((8, 8), "stretch")])
    most.append(peak())
print(*most)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the most that was held")
def test_several_large_images_need_no_more_memory_than_one(tmp_path):
    done = subprocess.run([sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, four = map(float, done.stdout.split())
    assert four - one < 25  # MB; another one would need 45


def test_no_more_is_taken_than_there_is_and_all_get_their_turn():
    budget, lock, held, most = Budget(100), threading.Lock(), [0], []

    def work(amount: int) -> None:
        with budget.taken(amount):
            with lock:
                held[0] += min(amount, 100)
                most.append(held[0])
            with lock:
                held[0] -= min(amount, 100)

    with pytest.raises(RuntimeError), budget.taken(100):
        raise RuntimeError  # gives back
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [10, 60, 70, 100, 500, 5, 30] * 40))  # 500: when nobody else has any
    assert len(most) == 280
    assert max(most) <= 100


@pytest.mark.parametrize(
    ("kinds", "advice"),
    [
        (["not finite", "not finite"], "not one image is left: save them with finite numbers$"),
        (["missing", "empty"], "not one image is left: check the paths$"),
        (["not finite"], "; save them with finite numbers or remove them, or set on_error=skip to leave them out$"),
        (["truncated"], "; mend or remove them, or set on_error=skip"),
    ],
)
def test_what_to_do_about_files_that_give_no_image(kinds, advice):
    with pytest.raises(CxrnetError, match=advice):
        report_bad(dict(enumerate(kinds)), ["a.tif", "b.tif"], "fail", "on_error")


def lungs(levels: int) -> np.ndarray:
    """Two ellipses, 0 or 255, or as a radiograph of so many grey levels."""
    image = Image.new("L", (299, 299))
    draw = ImageDraw.Draw(image)
    for left in (50, 170):
        draw.ellipse((left, 40, left + 80, 260), fill=255)
    mask = np.asarray(image)
    noise = np.random.default_rng(0).integers(0, levels, mask.shape)
    return mask if levels == 2 else (40 + mask // 3 + noise).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (224, 224)])
def test_masks_and_blank_pictures_look_binary_at_any_size_and_radiographs_dont(size):
    originals = np.stack([lungs(2), np.zeros((299, 299), np.uint8), lungs(80)])
    assert look_binary(resize_all(originals, size, "stretch")).tolist() == [True, True, False]


def test_the_warning_names_the_first():
    assert binary_warning([], 9) == []
    (text,) = binary_warning([f"{i}.png" for i in range(7)], 20)
    assert text.startswith("7 of 20 images have two grey levels or one")
    assert text.endswith("0.png, 1.png, 2.png, 3.png, 4.png, ...")


@pytest.fixture
def ten(tmp_path, manifest_of) -> pd.DataFrame:
    """Ten images; image i is of grey value i."""
    for i in range(10):
        Image.fromarray(np.full((9, 7), i, np.uint8)).save(tmp_path / f"{i:04d}.png")
    return manifest_of("a" * 10, path=[str(tmp_path / f"{i:04d}.png") for i in range(10)])


def spoil(manifest: pd.DataFrame, *rows: int) -> None:
    for row in rows:
        Path(manifest["path"][row]).write_bytes(b"no image")


def stream(manifest: pd.DataFrame, on_error: str, chunk: int, ahead: bool):
    return stream_images(manifest, (4, 3), "stretch", on_error, chunk, ahead)


@pytest.fixture(params=[True, False], ids=["ahead", "in turns"])
def ahead(request) -> bool:
    return request.param


@pytest.mark.parametrize(("chunk", "sizes"), [(1, [1] * 10), (4, [4, 4, 2]), (64, [10])])
def test_all_images_come_in_order_beside_their_rows(ten, chunk, sizes, ahead):
    parts = list(stream(ten, "fail", chunk, ahead))
    assert [images.shape for _, images in parts] == [(size, 4, 3) for size in sizes]
    assert [int(image[0, 0]) for _, images in parts for image in images] == list(range(10))
    assert pd.concat([rows for rows, _ in parts])["image_id"].tolist() == ten["image_id"].tolist()


def test_one_chunk_at_most_is_read_ahead_and_none_in_turns(ten, ahead):
    parts = stream(ten, "fail", 2, ahead)
    next(parts)
    spoil(ten, *range(4 if ahead else 2, 10))
    with pytest.raises(CxrnetError, match=f"{6 if ahead else 8} of 10 files give no image"):
        list(parts)


def test_who_leaves_early_does_not_wait_for_the_rest_of_a_chunk():
    asked = []

    def never_done(_start: int, stopped):
        while not stopped():
            asked.append(time.sleep(0.01))

    def wait_for_a_chunk() -> None:
        with one_ahead(never_done, range(0, 10, 2)) as chunks:
            next(chunks)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            wait_for_a_chunk()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert asked


def test_skip_leaves_out_what_gives_no_image_and_tells_all_in_the_end(ten, caplog, ahead):
    spoil(ten, 0, 5, 6, 7)
    parts = list(stream(ten, "skip", 2, ahead))
    assert [int(name[:4]) for rows, _ in parts for name in rows["image_id"]] == [1, 2, 3, 4, 8, 9]
    assert [int(image[0, 0]) for _, images in parts for image in images] == [1, 2, 3, 4, 8, 9]
    assert "4 of 10 files give no image (4 not an image)" in caplog.text


def test_fail_names_all_of_them_and_hands_out_nothing_after_the_first(ten, ahead):
    spoil(ten, 3, 9)
    parts = stream(ten, "fail", 2, ahead)
    assert next(parts)[0]["image_id"].tolist() == ["0000.png", "0001.png"]
    with pytest.raises(CxrnetError, match=r"2 of 10 files give no image .*3\.png.*9\.png"):
        next(parts)


@pytest.mark.parametrize(
    ("on_error", "message"),
    [("fail", "not one image is left"), ("skip", "not one image is left"), ("ignore", "^on_error: 'ignore' is not")],
)
def test_no_image_at_all_or_an_unknown_rule(ten, on_error, message, ahead):
    spoil(ten, *range(10))
    with pytest.raises(CxrnetError, match=message):
        list(stream(ten, on_error, 4, ahead))


def test_outliers_that_were_clipped_are_said_once_for_all_chunks(ten, caplog, ahead):
    hot = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    hot[3, 3] = 65535
    for row in (1, 8):
        Image.fromarray(hot).save(ten["path"][row])
    list(stream(ten, "fail", 3, ahead))
    (record,) = caplog.records
    assert "in 2 of the files" in record.getMessage()
