import logging
import resource
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cxrnet.core.cache import kept, new_array, wait_for_disk
from cxrnet.errors import CxrnetError


def write(folder: Path) -> None:
    (folder / "file").write_text("whole")


def test_what_fails_is_not_there_and_what_it_had_made_is_handed_on(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise CxrnetError("the data are bad")

    def go_on(folder: Path) -> None:
        assert (folder / "half").read_text() == "half"
        write(folder)

    with pytest.raises(CxrnetError, match="the data are bad"):
        kept(tmp_path / "key", fail)
    assert not (tmp_path / "key").exists()
    assert (kept(tmp_path / "key", go_on) / "file").read_text() == "whole"


def test_of_two_at_once_one_makes_it_and_the_other_says_that_it_waits(tmp_path, caplog):
    made, begun = [], threading.Event()

    def slowly(folder: Path) -> None:
        made.append(folder)
        begun.set()
        time.sleep(0.3)
        write(folder)

    thread = threading.Thread(target=kept, args=(tmp_path / "key", slowly))
    thread.start()
    begun.wait()
    with caplog.at_level(logging.WARNING, "cxrnet"):
        folder = kept(tmp_path / "key", slowly)
    assert (folder / "file").read_text() == "whole"
    thread.join()
    assert len(made) == 1
    assert "another process is making" in caplog.text


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CxrnetError, match=r"cache: .*key' can't be written .*free space, give cache=.*, or cache=null"):
        kept(tmp_path / "file" / "key", write)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the space isn't claimed beforehand")
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(CxrnetError, match=r"cache: .* can't be written \(File too large\)"):
            kept(tmp_path / "key", lambda folder: new_array(folder / "a.npy", (2**21,), np.uint8) and None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "key").exists()


def test_a_new_array_is_zeros_and_what_is_written_is_in_the_file(tmp_path):
    array = new_array(tmp_path / "a.npy", (3, 2), np.int32)
    assert not array.any()
    array[1] = 7
    wait_for_disk(array)
    assert np.load(tmp_path / "a.npy").tolist() == [[0, 0], [7, 7], [0, 0]]
