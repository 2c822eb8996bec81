import errno
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cxrnet.core.machine import check_writable, machine_error
from cxrnet.errors import CxrnetError

# As on a disk without space; in a process of its own, for the limit stays.
WRITERS = """
import resource
from pathlib import Path
import numpy as np, pandas as pd, torch
from safetensors.torch import save_file
from cxrnet.errors import CxrnetError
from cxrnet.core.machine import machine_told
from cxrnet.tracking.record import read_record
from cxrnet.tracking.run import track
from cxrnet.training.checkpoints import PlainFiles

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
table = pd.DataFrame({"a": np.random.default_rng(0).random(100_000)})
for write in (
    lambda: open("bytes", "wb").write(bytes(1_000_000)),
    lambda: torch.save(torch.zeros(1_000_000), "torch"),
    lambda: save_file({"a": torch.zeros(1_000_000)}, "safetensors"),
    lambda: np.save("numpy", np.zeros(1_000_000)),
    lambda: table.to_parquet("parquet"),
    lambda: table.to_csv("csv"),
):
    try:
        with machine_told():
            write()
    except Exception as error:
        print(type(error).__name__, error)
    else:
        print("written")

try:
    with track(Path("run"), None, "x", Path()), machine_told():
        PlainFiles().save_checkpoint({"a": torch.zeros(1_000_000)}, Path("run/kept.ckpt"))
except CxrnetError:
    print(read_record(Path("run"))["status"], Path("run/error.txt").read_text(), end="")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_what_cannot_be_written_is_one_line_whoever_writes(tmp_path):
    done = subprocess.run([sys.executable, "-c", WRITERS], cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 7, done
    assert lines.pop().startswith("FAILED a file can't be written, the disk is full")
    assert [line for line in lines if not re.fullmatch("CxrnetError a file.*; free space there, or.*", line)] == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a"), "'a': Permission denied; get the right"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "a file: Too many open files; allow more"),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError("1000 requested and 24 written"), "the disk is full"),
    ],
)  # fmt: skip
def test_what_is_said(error, line):
    assert line in (machine_error(error) or "")


def test_a_folder_that_can_be_written_is_made(tmp_path):
    check_writable(tmp_path / "a" / "b", "outputs")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "a", Path("/proc/a")):
        with pytest.raises(CxrnetError, match=r"^outputs: '.*' can't be written to \(.*\); "):
            check_writable(folder, "outputs")
