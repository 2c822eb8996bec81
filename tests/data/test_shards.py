"""Shards: what is written, what is read, and what is refused."""

import hashlib
import json
import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrnet.data.duplicates import find_duplicates, rules
from cxrnet.data.images.store import load_at_sizes, look_binary
from cxrnet.data.loading import EpochSampler, Window
from cxrnet.data.shards import writing
from cxrnet.data.shards.array import ShardArray, check_window, shards_of
from cxrnet.data.shards.writing import write_shards
from cxrnet.data.sources.folder import folder
from cxrnet.data.sources.shards import shards
from cxrnet.errors import CxrnetError

SIZES = [((32, 24), "pad"), ((64, 64), "stretch")]


def write(manifest, target, per_shard=5, size=(32, 24), on_error="fail", issues=None, cache=None):
    return write_shards(manifest, str(target), (size, "pad"), per_shard, on_error, cache, issues or {})


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def files(tmp_path_factory, draw) -> pd.DataFrame:
    """The manifest of 36 images, one of them twice, one of two grey levels."""
    from PIL import Image

    root = draw(tmp_path_factory.mktemp("data") / "files")
    shutil.copy(root / "Covid" / "00.png", root / "Normal" / "again.png")
    Image.fromarray(np.repeat(np.uint8([[0, 255]]), 40, axis=0)).resize((40, 48), 0).save(root / "Normal" / "mask.png")
    return folder(root)


@pytest.fixture(scope="module")
def written(files, tmp_path_factory) -> Path:
    """Their shards; not to be changed."""
    target = tmp_path_factory.mktemp("shards") / "written"
    done = write(files, target)
    assert (done.images, done.shards, done.before, done.duplicates) == (38, 8, 0, 1)
    return target


@pytest.fixture
def copied(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copied"))


def test_images_manifest_duplicates_and_warnings_are_those_of_the_files(files, written):
    expected, (images, small) = load_at_sizes(files, SIZES, "fail")
    manifest, (sharded, sharded_small) = load_at_sizes(shards(str(written)), SIZES, "fail")
    pd.testing.assert_frame_equal(manifest.drop(columns="path"), expected.drop(columns="path"))
    np.testing.assert_array_equal(sharded[:], images[:])
    np.testing.assert_array_equal(sharded_small[:], small[:])
    pd.testing.assert_frame_equal(find_duplicates(sharded_small, manifest), find_duplicates(small, expected))
    assert look_binary(sharded_small).tolist() == look_binary(small[:]).tolist()
    assert look_binary(small).sum() == 1


def test_images_of_the_size_of_the_search_for_duplicates_are_those_of_the_files(files, tmp_path):
    """Both sets of shards then hold the same images, and one of them is read for both."""
    size = ((64, 64), "stretch")
    write_shards(files, str(tmp_path / "square"), size, 5, "fail", None, {})
    manifest, found = load_at_sizes(shards(str(tmp_path / "square")), [size, size], "fail")
    _, expected = load_at_sizes(files, [size, size], "fail")
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one[:], other[:])
    pd.testing.assert_frame_equal(find_duplicates(found[1], manifest), find_duplicates(expected[1], manifest))


def test_any_rows_of_any_part_are_read_in_any_order(files, written):
    _, (images, _) = load_at_sizes(files, SIZES, "fail")
    _, (sharded, _) = load_at_sizes(shards(str(written)), SIZES, "fail")
    for rows in ([37, 0, 0, 12], [3], [], np.arange(38)[::-1]):
        np.testing.assert_array_equal(sharded[rows], images[rows])
    part, whole = sharded.take(np.arange(3, 30, 4)), images.take(np.arange(3, 30, 4))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part))[[2, 0]], whole[[2, 0]])
    np.testing.assert_array_equal(np.stack([*part]), np.stack([*whole]))
    assert part.shape == whole.shape
    assert len(pickle.dumps(sharded)) < 20_000  # names, no pixels


def test_duplicates_of_a_part_are_those_of_the_part(written):
    manifest = shards(str(written)).query("label == 'Normal'").reset_index(drop=True)
    manifest, (small,) = load_at_sizes(manifest, SIZES[1:], "fail")
    assert find_duplicates(small, manifest).empty  # the other one of the pair is of another class
    with_other_rules = small.array.noted.__class__(small.array.noted.binary, {}, "older rules")
    small.array.noted = with_other_rules
    assert with_other_rules.rules != rules()
    assert find_duplicates(small, manifest).empty  # searched anew


def test_a_second_start_goes_on_and_ends_with_the_same_bytes(files, written, tmp_path, monkeypatch):
    target, store = tmp_path / "stopped", writing._store
    stored = []

    def store_some(storage, number, *others):
        if number == 3:
            raise KeyboardInterrupt
        stored.append(number)
        return store(storage, number, *others)

    monkeypatch.setattr(writing, "_store", store_some)
    with pytest.raises(KeyboardInterrupt):
        write(files, target)
    with pytest.raises(CxrnetError, match=r"has no shards\.json, so there are no shards, or they are not finished"):
        shards(str(target))
    monkeypatch.setattr(writing, "_store", store)
    (target / "images" / "shard.00003.mds.partial").write_bytes(b"half")  # as a killed process leaves it
    (target / "small" / "shard.00001.mds").unlink()  # noted as finished, and gone
    assert write(files, target).before == 2
    assert stored == [0, 1, 2]
    (target / "images" / "shard.00003.mds.partial").unlink(missing_ok=True)
    assert contents(target) == contents(written)
    assert write(files, target).before == 8
    assert contents(target) == contents(written)


def test_shards_of_other_images_are_not_overwritten(files, written, copied):
    for changed in (
        partial(write, files.iloc[1:]),
        partial(write, files, per_shard=6),
        partial(write, files, size=(32, 32)),
        partial(write, files.iloc[:30]),
    ):
        with pytest.raises(CxrnetError, match="holds shards of other images, or of another size or number in each"):
            changed(target=copied)
    assert contents(copied) == contents(written)


def test_files_that_give_no_image_stop_the_command_or_are_left_out(files, tmp_path):
    broken = files.copy()
    broken.loc[7, "path"] = str(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(CxrnetError, match="1 of 38 files give no image"):
        write(broken, tmp_path / "shards")
    done = write(broken, tmp_path / "shards", on_error="skip")
    assert (done.images, done.left_out, done.before) == (37, 1, 7)
    read, (images,) = load_at_sizes(shards(str(tmp_path / "shards")), SIZES[:1], "fail")
    expected, (others,) = load_at_sizes(broken, SIZES[:1], "skip")
    pd.testing.assert_frame_equal(read.drop(columns="path"), expected.drop(columns="path"))
    np.testing.assert_array_equal(images[:], others[:])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (shutil.rmtree, "has no shards.json"),
        (lambda root: (root / "shards.json").unlink(), "has no shards.json"),
        (lambda root: (root / "shards.json").write_text("{"), "shards.json' is damaged"),
        (lambda root: (root / "shards.json").write_text('{"format": 99}'), "another version of cxrnet"),
        (lambda root: (root / "images" / "index.json").unlink(), "images/index.json' is missing"),
        (lambda root: (root / "manifest.parquet").unlink(), "manifest.parquet' is missing"),
        (lambda root: (root / "manifest.parquet").write_bytes(b"x"), "is damaged, or of other shards"),
        (lambda root: (root / "images" / "shard.00002.mds").unlink(), "images/shard.00002.mds' is missing"),
        (lambda root: (root / "small" / "shard.00001.mds").write_bytes(b"x"), r"shard.00001.mds' has 1 bytes of \d+"),
        (lambda root: flip(root / "images" / "shard.00004.mds"), "shard.00004.mds' is damaged"),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_shards_that_are_not_sound_are_refused_in_one_line(copied, tmp_path, harm, message, cached):
    cache = tmp_path / "cache" if cached else None
    load_at_sizes(shards(str(copied)), SIZES, "fail", cache)  # sound so far, and noted
    harm(copied)
    with pytest.raises(CxrnetError, match=message) as told:
        load_at_sizes(shards(str(copied)), SIZES, "fail", cache)
    assert "\n" not in str(told.value)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


def test_a_manifest_of_other_shards_another_size_and_a_mixture_are_refused(files, copied):
    manifest = shards(str(copied))
    swapped = manifest.assign(path=manifest["path"].to_numpy()[::-1])
    beyond = manifest.assign(path=manifest["path"].str.replace("#0", "#9"))
    for other in (swapped, beyond, manifest.assign(path=manifest["path"].str.replace("00000.mds", "00099.mds"))):
        with pytest.raises(CxrnetError, match=r"are of another manifest: 'Covid/00\.png' is not in its place"):
            load_at_sizes(other, SIZES, "fail")
    with pytest.raises(CxrnetError, match=r"hold images of 32 x 24 pixels \(pad\), and 48 x 48 \(pad\) are asked for"):
        load_at_sizes(manifest, [((48, 48), "pad")], "fail")
    with pytest.raises(CxrnetError, match="images of shards are mixed with others"):
        load_at_sizes(pd.concat([manifest, files], ignore_index=True), SIZES, "fail")
    with pytest.raises(CxrnetError, match="these images are in shards already"):
        write(manifest, copied.parent / "again")


def test_a_folder_of_something_else_and_shards_that_are_too_large_are_refused(files, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CxrnetError, match="is not empty and holds no shards"):
        write(files, tmp_path)
    with pytest.raises(CxrnetError, match="are more than a shard holds"):
        write(files, tmp_path / "new", per_shard=10**7)


def test_known_issues_are_said_again(files, tmp_path, caplog):
    write(files, tmp_path / "shards", issues={"files": ["one is a mask"]})
    shards(str(tmp_path / "shards"))
    assert "known issue of files: one is a mask" in caplog.text


def test_files_are_checked_once(copied, tmp_path, monkeypatch):
    from cxrnet.data.shards import array

    read, count = [], array._sha256
    monkeypatch.setattr(array, "_sha256", lambda file: read.append(file) or count(file))
    for expected in (16, 16, 17):
        if expected == 17:
            flip(copied / "images" / "shard.00000.mds")
            flip(copied / "images" / "shard.00000.mds")  # the same bytes, at another time
        load_at_sizes(shards(str(copied)), SIZES, "fail", tmp_path)
        assert len(read) == expected


def test_the_files_are_mds(written):
    """As the library's own writer lays them out (tried with mosaicml-streaming 0.13; see docs/scale.md)."""
    index = json.loads((written / "images" / "index.json").read_text())
    assert (index["version"], sum(each["samples"] for each in index["shards"])) == (2, 38)
    entry = index["shards"][0]
    content = (written / "images" / entry["raw_data"]["basename"]).read_bytes()
    assert len(content) == entry["raw_data"]["bytes"]
    assert hashlib.sha256(content).hexdigest() == entry["raw_data"]["hashes"]["sha256"]
    numbers = np.frombuffer(content, np.uint32, 7)
    assert numbers[0] == 5
    assert np.diff(numbers[1:].astype(int)).tolist() == [32 * 24] * 5
    described = json.loads(content[28 : numbers[1]])
    assert described["column_encodings"] == ["ndarray:uint8:32,24"]
    assert {name: entry[name] for name in described} == described


@pytest.mark.parametrize("draw", ["shuffle", "balanced"])
def test_a_window_keeps_to_few_shards_at_a_time_and_every_image_once(draw):
    import torch

    def order(window, processes=1, rank=0) -> np.ndarray:
        shares = EpochSampler(labels, draw, 3, 8, processes, rank, window)
        return np.concatenate([share.indices for share in shares])

    shard, labels = np.repeat(np.arange(50), 20), torch.arange(1000) % 2
    plain, within = order(None), order(Window(shard, 4))
    assert sorted(plain.tolist()) == sorted(within.tolist())
    assert order(Window(shard, 4)).tolist() == within.tolist()
    assert max(len(set(shard[within[start : start + 32]])) for start in range(0, 1000, 32)) <= 10
    shares = [order(Window(shard, 4), 2, rank) for rank in (0, 1)]
    assert np.stack(shares, axis=1).ravel().tolist() == within.tolist()
    assert len(set(shard[within[:16]])) > 2  # mixed


def test_a_window_is_of_shards_and_fits_what_is_kept(written):
    _, (images,) = load_at_sizes(shards(str(written)), SIZES[:1], "fail")
    check_window(images, 3)
    assert shards_of(images).tolist() == [row // 5 for row in range(38)]
    assert isinstance(images.array, ShardArray)
    images.array.room = 5  # as of shards on S3 of which no more are kept
    check_window(images, 3)
    for window, asked in ((None, "all of them"), (4, r"4 \+ 2")):
        with pytest.raises(CxrnetError, match=f"hold 5 of 8 shards, and images come from {asked} at a time; give data"):
            check_window(images, window)
    plain = type(images)(images[:], np.arange(38))
    check_window(plain, None)
    with pytest.raises(CxrnetError, match=r"data\.window: is of shards, and these images are none"):
        check_window(plain, 3)
