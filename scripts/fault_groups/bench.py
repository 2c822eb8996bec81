"""The bench of every fault: a tiny data set of made-up pictures, one run on it, and that run undisturbed."""

import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cxrnet.models.backbones.registry import backbone_spec

CLASSES = ("Covid", "Normal", "Viral Pneumonia")
IMAGES = 40  # of each class
EPOCHS = 16  # of the whole run: four phases of four
LONGEST = 240.0  # seconds that a command may take before it counts as hanging
AT_ONCE = 2  # tries side by side
WAITING = 4  # the same, of those that mostly wait
EPOCH = re.compile(r"^\s+\w+\s+\d+/\d+\s+train loss")
RESULTS = ("bundle/model.safetensors", "metrics.json", "predictions.parquet")


@dataclass(frozen=True)
class Try:
    """One fault, made once.

    Attributes:
        group: that it belongs to.
        fault: what was done, one row of the table.
        lost: what was lost or came twice, a sentence for each; empty where nothing was.
        note: what else a reader wants to know.
        waited: the most seconds that one epoch took longer than in the undisturbed run; ``None`` where not measured.
    """

    group: str
    fault: str
    lost: list[str] = field(default_factory=list)
    note: str = ""
    waited: float | None = None


class Running:
    """A command of cxrnet at work.

    Args:
        folder: where it runs.
        words: after ``python -m``.

    Attributes:
        lines: of its output and errors, each with the time at which it came (``time.monotonic``).
        began: when it was started.
        sent: when it got its first signal; when it was started, before that.
        ended: when it had ended, or when it had to be killed because it hung.
    """

    def __init__(self, folder: Path, *words: str) -> None:
        self.began = self.sent = self.ended = time.monotonic()
        self.lines: list[tuple[float, str]] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything that it has printed."""
        return "\n".join(line for _, line in self.lines)

    @property
    def epochs(self) -> list[float]:
        """Times at which the line of each epoch came."""
        return [moment for moment, line in list(self.lines) if EPOCH.match(line)]

    @property
    def at_work(self) -> bool:
        """True while it is running."""
        return self._process.poll() is None

    def wait_for_epoch(self, number: int, seconds: float = LONGEST) -> None:
        """Wait until so many epochs are done, the command has ended, or the time is over."""
        with self._news:
            self._news.wait_for(lambda: len(self.epochs) >= number or not self._reader.is_alive(), seconds)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and all that it started; nothing where it has ended."""
        self.sent = time.monotonic() if self.sent == self.began else self.sent
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def end(self, seconds: float = LONGEST) -> int | None:
        """Wait for its end; return the exit status, or ``None`` where it hung and had to be killed."""
        try:
            status: int | None = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait()
            status = None
        self.ended = time.monotonic()
        self._reader.join(10)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.lines.append((time.monotonic(), line.rstrip("\n")))
                self._news.notify_all()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with self._news:
            self._news.notify_all()


@dataclass(frozen=True)
class Bench:
    """The place where faults are tried.

    Attributes:
        top: the folder of all tries.
        seconds: that the undisturbed run took, from its start as a process.
        gaps: seconds from each epoch's line to the next in the undisturbed run, ``(EPOCHS - 1,)``.
    """

    top: Path
    seconds: float
    gaps: list[float]

    @classmethod
    def set_up(cls, top: Path) -> "Bench":
        """Draw the data and run once undisturbed.

        Raises:
            RuntimeError: the undisturbed run failed.
        """
        draw(top / "xrays")
        torch.manual_seed(0)
        torch.save(backbone_spec("custom_cnn").build((32, 32)).state_dict(), top / "weights.pt")
        first = cls(top, 0.0, [])
        folder = first.place("undisturbed")
        # Two side by side, as the tries are: the moments of the kills follow from how long it takes.
        beside = [first.train(folder), *(first.train(first.place(f"beside-{n}")) for n in range(1, AT_ONCE))]
        status = [running.end() for running in beside]
        if any(status) or len(beside[0].epochs) != EPOCHS:
            raise RuntimeError(f"the undisturbed run failed, or has not {EPOCHS} epochs:\n{beside[0].text}")
        return cls(top, beside[0].ended - beside[0].began, differences(beside[0].epochs))

    @property
    def undisturbed(self) -> Path:
        """The folder of the undisturbed run."""
        return self.top / "undisturbed" / "run"

    def place(self, name: str) -> Path:
        """Make the folder of a try."""
        (self.top / name).mkdir()
        return self.top / name

    def words(self) -> list[str]:
        """Return the command of the run, in its short form; the same for every try."""
        return [
            "cxrnet.train", "data=folder", f"data.root={self.top / 'xrays'}", "data.size=[32,32]", "data.batch_size=8",
            "model=custom_cnn", f"model.weights={self.top / 'weights.pt'}", "trainer=cpu", "schedule=gradual",
            f"schedule.max_epochs={EPOCHS // 4}", "schedule.best_from=10", "schedule.views=2",
            "evaluation.resamples=200", *(f"schedule.phases.{phase}.patience={EPOCHS}" for phase in range(3)),
        ]  # fmt: skip

    def train(self, folder: Path, *words: str) -> Running:
        """Start the run in ``run`` below a folder."""
        return Running(folder, *self.words(), "hydra.run.dir=run", *words)

    def other_results(self, run: Path) -> list[str]:
        """List results of a run that aren't bitwise those of the undisturbed one."""
        lost = []
        for name in RESULTS:
            if not (run / name).is_file():
                lost.append(f"no {name}")
            elif (run / name).read_bytes() != (self.undisturbed / name).read_bytes():
                lost.append(f"another {name}")
        return lost

    def waited(self, running: Running) -> float | None:
        """Compute the longest delay of an epoch against the undisturbed run, in seconds."""
        gaps = differences(running.epochs)
        return max((ours - theirs for ours, theirs in zip(gaps, self.gaps, strict=False)), default=None)


def differences(moments: list[float]) -> list[float]:
    """Compute seconds from each moment to the next."""
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


def draw(root: Path) -> None:
    """Draw small grey images, a folder a class; the class shows in where a bright band lies."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(IMAGES):
            blobs = Image.fromarray(rng.integers(0, 120, (7, 6), np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
            image = np.asarray(blobs) + rng.integers(0, 40, (48, 48))
            image[:, 16 * place : 16 * place + 16] += 50
            Image.fromarray(image.astype(np.uint8)).save(root / name / f"{number:02d}.png")


def environment() -> dict[str, str]:
    """Make the commands' environment: one thread each, without the user's MLflow address."""
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def sync(folder: Path) -> str:
    """Send what is left of the run in ``run`` below a folder; return what kept it from being sent, or an empty text."""
    if importlib.util.find_spec("cxrnet.sync") is None:
        return "no command sends what is left"
    running = Running(folder, "cxrnet.sync", "run")
    status = running.end()
    return "" if status == 0 else f"cxrnet.sync ends with {status}: {last_line(running.text)}"


def last_line(text: str) -> str:
    """Find the last line that says something, in a traceback the kind of its error."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    last = lines[-1] if lines else ""
    return last.partition(":")[0] if "Traceback" in text else last


def side_by_side(group: str, tries: Iterable[Callable[[], Try]], at_once: int = AT_ONCE) -> Iterator[Try]:
    """Make tries, a few at a time, and say on the console how each ended; one that fails leaves the others alone."""

    def make(each: Callable[[], Try]) -> Try:
        try:
            return each()
        except Exception as error:  # whatever MLflow or the system may raise
            return Try(group, "could not be tried", [f"{type(error).__name__}: {last_line(str(error))}"])

    with ThreadPoolExecutor(at_once) as pool:
        for done in pool.map(make, tries):
            print(f"{done.group:8} {done.fault}: {'; '.join(done.lost) or 'nothing lost'}", flush=True)
            yield done


@contextmanager
def after(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    """Do something after so many seconds, or at the end of the ``with`` if that comes first."""
    timer = threading.Timer(seconds, action)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        action()
