import logging
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.images.reader import one_ahead, read_into, stream_images
from cxrnet.data.manifest import make_manifest
from cxrnet.errors import CxrnetError


@pytest.fixture
def manifest(tmp_path) -> pd.DataFrame:
    """Ten images; image i is of grey value i."""
    paths = [tmp_path / f"{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((9, 7), i, np.uint8)).save(path)
    rows = {"image_id": [path.name for path in paths], "path": map(str, paths), "label": "a", "source": "s"}
    return make_manifest(pd.DataFrame(rows), "test")


def spoil(manifest: pd.DataFrame, *rows: int) -> None:
    for row in rows:
        Path(manifest["path"][row]).write_bytes(b"no image")


@pytest.fixture(params=[True, False], ids=["ahead", "in turns"])
def ahead(request) -> bool:
    return request.param


@pytest.mark.parametrize(("chunk", "sizes"), [(1, [1] * 10), (4, [4, 4, 2]), (10, [10]), (64, [10])])
def test_all_images_come_in_order_beside_their_rows(manifest, chunk, sizes, ahead):
    parts = list(stream_images(manifest, (4, 3), "stretch", "fail", chunk, ahead))
    assert [len(images) for _, images in parts] == sizes
    assert [int(image[0, 0]) for _, images in parts for image in images] == list(range(10))
    assert pd.concat([rows for rows, _ in parts])["image_id"].tolist() == manifest["image_id"].tolist()
    assert all(images.shape[1:] == (4, 3) for _, images in parts)


def test_no_more_than_one_chunk_is_read_ahead(manifest):
    parts = stream_images(manifest, (4, 3), "stretch", "fail", 2, ahead=True)
    next(parts)
    spoil(manifest, 4, 5, 6, 7, 8, 9)
    with pytest.raises(CxrnetError, match="6 of 10 files give no image"):
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


def test_files_are_left_unread_once_nobody_wants_them(manifest):
    array = np.zeros((10, 4, 3), np.uint8)
    asked = iter([False, False, False])
    facts, bad = read_into(
        [array], range(10), manifest["path"].tolist(), [((4, 3), "stretch")], lambda: next(asked, True)
    )
    assert facts["read"].sum() == 3
    assert not bad


def test_in_turns_nothing_is_read_before_it_is_asked_for(manifest):
    parts = stream_images(manifest, (4, 3), "stretch", "fail", 2, ahead=False)
    next(parts)
    spoil(manifest, 2, 3, 4, 5, 6, 7, 8, 9)
    with pytest.raises(CxrnetError, match="8 of 10 files give no image"):
        list(parts)


def test_skip_leaves_out_what_gives_no_image_and_tells_all_in_the_end(manifest, caplog, ahead):
    spoil(manifest, 0, 5, 6, 7)
    with caplog.at_level(logging.WARNING, "cxrnet"):
        parts = list(stream_images(manifest, (4, 3), "stretch", "skip", 2, ahead))
    assert [row for rows, _ in parts for row in rows["image_id"]] == [
        "1.png",
        "2.png",
        "3.png",
        "4.png",
        "8.png",
        "9.png",
    ]
    assert [int(image[0, 0]) for _, images in parts for image in images] == [1, 2, 3, 4, 8, 9]
    assert "4 of 10 files give no image (4 not an image)" in caplog.text


def test_fail_names_all_of_them_and_hands_out_nothing_after_the_first(manifest, ahead):
    spoil(manifest, 3, 9)
    parts = stream_images(manifest, (4, 3), "stretch", "fail", 2, ahead)
    rows, _ = next(parts)
    assert rows["image_id"].tolist() == ["0.png", "1.png"]
    with pytest.raises(CxrnetError, match=r"2 of 10 files give no image .*3\.png.*9\.png"):
        next(parts)


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_no_image_at_all(manifest, on_error, ahead):
    spoil(manifest, *range(10))
    with pytest.raises(CxrnetError, match=r"10 of 10 files .* not one image is left"):
        list(stream_images(manifest, (4, 3), "stretch", on_error, 4, ahead))


def test_unknown_rule(manifest):
    with pytest.raises(CxrnetError, match=r"^on_error: 'ignore' is not known"):
        list(stream_images(manifest, (4, 3), "stretch", "ignore", 4, ahead=True))


def test_outliers_that_were_clipped_are_said_once_for_all_chunks(manifest, caplog, ahead):
    hot = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    hot[3, 3] = 65535
    for row in (1, 8):
        Image.fromarray(hot).save(manifest["path"][row])
    list(stream_images(manifest, (4, 3), "stretch", "fail", 3, ahead))
    (record,) = caplog.records
    assert "in 2 of the files" in record.getMessage()
