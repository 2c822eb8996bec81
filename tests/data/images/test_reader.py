import pickle
import signal
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
from cxrnet.data.images.reader import Images, _Budget, read_into, resize, resize_all
from cxrnet.data.images.store import look_binary, one_ahead, report_bad, stream_images
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


def test_a_huge_file_is_refused_without_reading_it(tmp_path, monkeypatch):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2_000_000_000)  # takes no room on the disk
    monkeypatch.setattr(reader, "_read_bytes", None)
    assert read_into(empty(SIX), [0], [str(tmp_path / "huge.png")], SIX)[1] == {0: "too much memory"}


def test_no_more_is_taken_than_there_is_and_all_get_their_turn():
    budget, lock, held, most = _Budget(100), threading.Lock(), [0], []

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


TEN = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((10, 2, 3), np.uint8)


def test_images_are_rows_of_an_array_in_an_order_of_their_own():
    images = Images(TEN, np.array([7, 2, 5]))
    assert len(images) == 3
    assert images.shape == (3, 2, 3)
    assert images[:2][:, 0, 0].tolist() == [7, 2]
    assert images[[2, 0, 0]][:, 0, 0].tolist() == [5, 7, 7]
    assert [image[0, 0] for image in images] == [7, 2, 5]


def test_images_are_taken_by_place_or_by_mask_without_being_read(tmp_path):
    np.save(tmp_path / "images.npy", TEN)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    images = Images.all_of(mapped).take(np.array([9, 4, 1]))
    assert images.take(np.array([True, False, True]))[:][:, 0, 0].tolist() == [9, 1]
    assert images.array is mapped


def test_another_process_maps_the_file_and_gets_no_copy_of_it(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((100, 64, 64), np.uint8))
    images = Images.all_of(np.load(tmp_path / "images.npy", mmap_mode="r")).take(np.array([3, 5]))
    message = pickle.dumps(images)
    assert len(message) < 2000
    assert pickle.loads(message).rows.tolist() == [3, 5]
    assert pickle.loads(pickle.dumps(Images(TEN, np.array([7]))))[:][0, 0, 0] == 7


@pytest.mark.parametrize("shape", [(40, 60), (299, 301), (7, 3), (1, 5), (2, 1), (64, 64), (2500, 2048)])
@pytest.mark.parametrize("size", [(32, 32), (33, 18), (1, 1), (80, 90)])
def test_pillow_gives_the_same_up_to_rounding(shape, size):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    by_pillow = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(resize(image, size, "stretch").astype(int) - by_pillow).max() <= 1


@pytest.mark.parametrize("rule", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(22, 30), (96, 48), (1, 1)])
def test_an_image_is_the_same_alone_and_among_others(rule, size):
    images = np.random.default_rng(0).integers(0, 256, (7, 53, 71)).astype(np.uint8)
    together = resize_all(images, size, rule)
    assert together.shape == (7, *size)
    assert together.dtype == np.uint8
    for image, resized in zip(images, together, strict=True):
        np.testing.assert_array_equal(resize(image, size, rule), resized)


def test_every_rule_puts_the_centre_into_the_centre():
    half = np.repeat(np.array([0, 200, 0], np.uint8), [25, 50, 25])[None].repeat(50, axis=0)  # the middle of 50 x 100
    padded = resize(np.full((50, 100), 200, np.uint8), (40, 40), "pad")
    assert padded[:, 0].tolist() == [0] * 10 + [200] * 20 + [0] * 10
    assert (resize(half, (20, 20), "crop")[:, 1:-1] == 200).all()
    assert (resize(half.T, (30, 30), "crop")[1:-1] == 200).all()
    stretched = resize(half, (10, 20), "stretch")
    assert (stretched[:, :4] == 0).all()
    assert (stretched[:, 6:14] == 200).all()
