"""Predictions whose reader leaves, of images with any name."""

import contextlib
import os
import shlex
import subprocess
import sys
import threading

import pandas as pd
import pytest

from cxrnet.models.bundle import save_bundle

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs bash")


@pytest.fixture
def predict(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "bundle")

    def call(line: str) -> subprocess.CompletedProcess[str]:
        command = f"PYTHONIOENCODING=ascii {shlex.quote(sys.executable)} -m cxrnet.predict bundle=bundle {line}"
        shell = ["bash", "-o", "pipefail", "-c", command]
        return subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


def test_the_file_is_whole_though_nobody_reads_on_and_names_are_not_ascii(predict, draw, tmp_path):
    draw(tmp_path / "xrays", classes=("Lungenentzündung",), images=40)
    done = predict("input=xrays output=p.csv batch_size=1 | head -1")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert r"xrays/Lungenentz\xfcndung/00.png" in done.stdout
    assert "Traceback" not in done.stderr
    assert len(pd.read_csv(tmp_path / "p.csv")) == 40


def test_a_name_that_is_not_utf8_is_one_line(predict, draw, tmp_path):
    (image,) = draw(tmp_path / "xrays", classes=("a",), images=1).rglob("*.png")
    try:
        image.rename(image.with_name(os.fsdecode(b"r\xf3.png")))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    done = predict("input=xrays output=p.csv")
    assert done.returncode == 2
    assert done.stderr == "error: input: the name of 'xrays/a/r\\udcf3.png' is not UTF-8; rename it\n"
    assert not (tmp_path / "p.csv").exists()


def test_a_bar_is_shown_on_a_terminal_alone(predict, draw, tmp_path):
    draw(tmp_path / "xrays", classes=("a", "b"), images=6)
    words = [sys.executable, "-m", "cxrnet.predict", "bundle=bundle", "input=xrays", "batch_size=1"]
    ours, theirs = os.openpty()
    said = bytearray()

    def listen() -> None:
        with contextlib.suppress(OSError):  # where the other end is closed
            while data := os.read(ours, 4096):
                said.extend(data)

    listener = threading.Thread(target=listen)
    listener.start()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True, check=False, env=environment
    )
    os.close(theirs)
    listener.join(10)
    os.close(ours)
    assert (done.returncode, done.stdout.count("\n")) == (0, 12)
    assert b"predicting" in said
    piped = predict("input=xrays 2>&1 >/dev/null")
    assert "predicting" not in piped.stdout
