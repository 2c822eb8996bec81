"""How long a command of a user takes, from its start to its end or to its first batch."""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MARK = "CXRNET_BENCHMARK_MARK"  # names the file that the first batch writes


def run(line: list[str], fails: bool) -> dict[str, Any]:
    """Seconds that ``python <line>`` takes.

    Raises:
        RuntimeError: it fails and should not, or the other way round.
    """
    with TemporaryDirectory() as folder:
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, *line], cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begin
    if bool(done.returncode) != fails:
        raise RuntimeError(f"python {' '.join(line)} ended with {done.returncode}: {done.stderr[-500:]}")
    return {"seconds": seconds}


def first_batch(overrides: list[str]) -> dict[str, Any]:
    """Seconds from the start of ``python -m cxrnet.train`` until its first batch of training images is there."""
    watched = [*overrides, f"augment._target_={__name__}.first_batch_came"]
    with TemporaryDirectory() as folder:
        mark = Path(folder) / "mark"
        begin = time.time()
        done = subprocess.run(
            [sys.executable, "-m", "cxrnet.train", *watched],
            cwd=folder, env={**os.environ, MARK: str(mark)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not mark.is_file():
            raise RuntimeError(f"cxrnet.train came to no batch: {done.stderr[-500:]}")
        return {"seconds": float(mark.read_text(encoding="utf-8")) - begin}


def first_batch_came(**_settings: float) -> Any:  # noqa: ANN401 (an augmentation)
    """An augmentation that notes the time and ends the process: what comes after the first batch isn't asked for."""

    def note(_images: "Tensor") -> "Tensor":
        Path(os.environ[MARK]).write_text(str(time.time()), encoding="utf-8")
        os._exit(0)

    return note
