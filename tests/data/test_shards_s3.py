"""Shards on S3, by a server on this machine."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrnet.data.images.store import load_at_sizes
from cxrnet.data.shards import storage
from cxrnet.data.shards.writing import write_shards
from cxrnet.data.sources.folder import folder
from cxrnet.data.sources.shards import shards
from cxrnet.errors import CxrnetError

SIZES = [((32, 24), "pad"), ((64, 64), "stretch")]
ROOT = "s3://xrays/some/shards"


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def client(server, monkeypatch, tmp_path):
    """The client of an empty server with a bucket, which the environment names."""
    import urllib.request

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    storage._client.cache_clear()
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST")).close()
    made = storage._client(0)
    made.create_bucket(Bucket="xrays")
    yield made
    storage._client.cache_clear()


@pytest.fixture
def written(client, xrays, tmp_path):
    """The client; the small images lie on S3, five in a shard."""
    done = write_shards(folder(xrays), ROOT, SIZES[0], 5, "fail", tmp_path / "first", {})
    assert (done.images, done.shards) == (36, 8)
    return client


@pytest.fixture
def copies(tmp_path) -> Path:
    return tmp_path / "copies"


def listed(client) -> dict[str, bytes]:
    keys = [each["Key"] for each in client.list_objects_v2(Bucket="xrays")["Contents"]]
    return {key: client.get_object(Bucket="xrays", Key=key)["Body"].read() for key in keys}


def test_they_are_those_of_a_folder_and_a_second_start_goes_on(written, xrays, tmp_path):
    write_shards(folder(xrays), str(tmp_path / "local"), SIZES[0], 5, "fail", None, {})
    local = {
        f"some/shards/{path.relative_to(tmp_path / 'local').as_posix()}": path.read_bytes()
        for path in (tmp_path / "local").rglob("*")
        if path.is_file()
    }
    assert listed(written) == local
    for key in ("shards.json", "parts/00002.npz", "images/shard.00005.mds"):
        written.delete_object(Bucket="xrays", Key=f"some/shards/{key}")
    done = write_shards(folder(xrays), ROOT, SIZES[0], 5, "fail", tmp_path / "first", {})
    assert done.before == 6
    assert listed(written) == local


def test_images_are_those_of_the_files_and_copied_when_asked_for(written, xrays, copies):
    expected, (images, small) = load_at_sizes(folder(xrays), SIZES, "fail")
    manifest, (there, there_small) = load_at_sizes(shards(f"{ROOT}/"), SIZES, "fail", copies)
    pd.testing.assert_frame_equal(manifest.drop(columns="path"), expected.drop(columns="path"))
    assert not list(copies.rglob("*.mds"))
    np.testing.assert_array_equal(there[[7, 6, 22]], images[[7, 6, 22]])
    assert sorted(path.name for path in copies.rglob("*.mds")) == ["shard.00001.mds", "shard.00004.mds"]
    np.testing.assert_array_equal(there[:], images[:])
    np.testing.assert_array_equal(there_small[:], small[:])


def test_no_more_is_kept_than_was_allowed(written, xrays, copies):
    shard = 5 * 32 * 24 + 400  # and its header
    _, (images, _) = load_at_sizes(folder(xrays), SIZES, "fail")
    _, (there, _) = load_at_sizes(shards(ROOT), SIZES, "fail", copies, kept_gb=3.5 * shard / 1e9)
    assert there.array.room == 3
    rng = np.random.default_rng(0)
    for rows in (np.arange(36), rng.permutation(36), rng.permutation(36)):
        for start in range(0, 36, 4):
            np.testing.assert_array_equal(there[rows[start : start + 4]], images[rows[start : start + 4]])
            assert len(list(copies.rglob("*.mds"))) <= 4  # as many as a batch has images
    assert len(there.array._maps) <= 3


@pytest.mark.parametrize("window", [None, 4])
def test_workers_read_what_one_process_reads(written, make_data, copies, window):
    at = {"size": (32, 24), "resize": "pad"}
    files = make_data(**at)
    kept = {"cache": copies, "kept_gb": 6.5 * (5 * 32 * 24 + 400) / 1e9 if window else None, "window": window}
    alone, shared = (make_data(manifest=partial(shards, ROOT), num_workers=workers, **at, **kept) for workers in (0, 2))
    pd.testing.assert_frame_equal(shared.manifest.drop(columns="path"), files.manifest.drop(columns="path"))
    batches = [list(data.train_dataloader()) for data in (files, alone, shared)]
    for mine, theirs in zip(batches[1], batches[2], strict=True):
        assert mine["image"].equal(theirs["image"])
    whole = [np.concatenate([batch["image"] for batch in each]) for each in batches]
    if window is None:
        np.testing.assert_array_equal(whole[0], whole[1])
    else:
        assert sorted(map(bytes, whole[0])) == sorted(map(bytes, whole[1]))


def test_what_is_damaged_or_missing_on_the_way_is_refused(written, copies):
    _, (there, _) = load_at_sizes(shards(ROOT), SIZES, "fail", copies)
    key = "some/shards/images/shard.00001.mds"
    content = written.get_object(Bucket="xrays", Key=key)["Body"].read()
    written.put_object(Bucket="xrays", Key=key, Body=content[:-1] + b"x")
    with pytest.raises(CxrnetError, match=r"shard.00001.mds' is damaged, its SHA-256 is another one"):
        there[[7]]
    assert not list(copies.rglob("shard*.mds*"))[1:]  # a lock, no half of a shard
    written.put_object(Bucket="xrays", Key=key, Body=content[:-1])
    with pytest.raises(CxrnetError, match=r"shard.00001.mds' has \d+ bytes of \d+"):
        load_at_sizes(shards(ROOT), SIZES, "fail", copies)
    written.delete_object(Bucket="xrays", Key=key)
    with pytest.raises(CxrnetError, match=r"shard.00001.mds' is missing"):
        there[[7]]
    with pytest.raises(CxrnetError, match=r"shard.00001.mds' is missing"):
        load_at_sizes(shards(ROOT), SIZES, "fail", copies)
    with pytest.raises(CxrnetError, match="cache: null, but shards on S3"):
        load_at_sizes(shards("s3://xrays/some/shards"), SIZES, "fail")


def test_places_that_cannot_be_read_are_told_in_one_line(client, monkeypatch):
    def refused(root: str) -> str:
        storage._client.cache_clear()
        with pytest.raises(CxrnetError) as told:
            shards(root)
        assert "\n" not in str(told.value)
        return str(told.value)

    assert "'s3://xrays/nothing' has no shards.json" in refused("s3://xrays/nothing")
    assert "there is no bucket 'nobody'" in refused("s3://nobody/shards")
    assert "'s3://' names no bucket" in refused("s3://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "S3 can't be reached" in refused(ROOT)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "there are no credentials for S3; set AWS_ACCESS_KEY_ID" in refused(ROOT)
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert refused(ROOT) == "shards: S3 needs boto3; pip install 'cxrnet[s3]'"


def test_a_manifest_elsewhere_still_names_images_on_s3(written, tmp_path):
    from cxrnet.data.manifest import read_manifest, write_manifest
    from cxrnet.data.sources.tables import read_table

    manifest = shards(ROOT)
    write_manifest(manifest, Path(tmp_path / "manifest.parquet"))
    for read in (read_manifest, read_table):
        pd.testing.assert_frame_equal(read(tmp_path / "manifest.parquet"), manifest)
