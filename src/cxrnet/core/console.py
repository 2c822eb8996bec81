"""Console and log: cxrnet's own words on the console, everything that libraries say in the run's log file.

stdout and stderr never end a command: a pipe whose reader left, a terminal that was closed and a full disk behind
``> log`` are no reason to lose a training.
"""

import errno
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import get_console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_CHATTY = ("lightning", "lightning.pytorch", "lightning.fabric", "mlflow", "alembic", "hydra", "optuna")


USER_ERROR = 2  # exit status, as argparse has it


def refusal(line: str) -> SystemExit:
    """Say what the user did wrong; the end of the command for it."""
    print(f"error: {line}", file=sys.stderr)
    return SystemExit(USER_ERROR)


def heading(text: str) -> None:
    """Print the heading of a step of the command."""
    get_console().print(f"\n[bold]{escape(text)}[/bold]", highlight=False)


def say(label: str, text: str) -> None:
    """Print one fact, its label in a column of its own."""
    get_console().print(f"  [dim]{escape(label):<12}[/dim] {escape(text)}", highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print what the user must know before they trust the result."""
    get_console().print(f"  [bold yellow]warning[/bold yellow]      {escape(text)}", highlight=False, soft_wrap=True)


def show(table: Table) -> None:
    """Print a table, its cells as they are: a class may be called ``[/red]``."""
    get_console().print(table, markup=False)


def log_to(folder: Path) -> None:
    """Log libraries' messages and Python's warnings to ``run.log`` in the folder instead of the console.

    Libraries' errors and cxrnet's own warnings still reach the console.
    """
    file = logging.FileHandler(folder / "run.log", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    console = _ConsoleHandler()
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.INFO)
    root.addHandler(file)
    root.addHandler(console)
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    quiet_libraries()


def quiet_libraries() -> None:
    """Take the console away from libraries that set up a handler when they are imported."""
    for name in _CHATTY:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True


@contextmanager
def heard(notes: bool = False) -> Iterator[list[str]]:
    """Collect cxrnet's warnings, which reach the console too; on request also its notes, which are shown then."""
    collector = _Collector(logging.INFO if notes else logging.WARNING)
    logger = logging.getLogger("cxrnet")
    logger.addHandler(collector)
    try:
        yield collector.texts
    finally:
        logger.removeHandler(collector)


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        if record.levelno < logging.WARNING:
            say("note", self.texts[-1])


class _ConsoleHandler(logging.Handler):
    """Shows cxrnet's warnings and anybody's errors."""

    def emit(self, record: logging.LogRecord) -> None:
        own = record.name == "cxrnet" or record.name.startswith("cxrnet.")
        if record.levelno >= (logging.WARNING if own else logging.ERROR):
            warn(record.getMessage())


_LINE_EVERY = 30.0  # seconds, without a terminal


@contextmanager
def bar(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show progress: a bar on a terminal, else a line now and then.

    Yields:
        A function that takes the number of further steps done, of ``total``, of which ``done`` were done before.
    """
    if not get_console().is_terminal:
        yield _lines(what, total, done)
        return
    columns = (TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=get_console()) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda steps: progress.advance(task, steps)


def _lines(what: str, total: int, done: int) -> Callable[[int], None]:
    last = time.monotonic()

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        if time.monotonic() - last > _LINE_EVERY and done < total:
            last = time.monotonic()
            get_console().print(f"  {what}  {done:,} of {total:,}", highlight=False)

    return advance


class _Lasting(io.FileIO):
    """A file that drops what can't be written.

    Attributes:
        lost: why the first words were dropped.
    """

    lost: OSError | None = None

    def write(self, data, /):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 (as io has it)
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes


def keep_streams() -> None:
    """Let stdout and stderr of this process drop what can't be written, and write what they can't encode escaped.

    Streams that somebody has put in their places are left alone.
    """
    for number in range(3):  # a file that is opened later must not get the number of a stream that is closed
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115, PTH123 (never closed)
            setattr(sys, name, nowhere)
        elif _is_plain(stream, number):
            stream.flush()
            lasting = io.TextIOWrapper(
                io.BufferedWriter(_Lasting(number, "w", closefd=False)),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, lasting)


def stdout_lost() -> OSError | None:
    """Say why what was printed isn't where it should be; ``None`` where it is, as far as the system knows."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Lasting) else None


def nobody_reads() -> bool:
    """Tell whether the reader of stdout has left, as ``head`` does when it has its lines."""
    lost = stdout_lost()
    return lost is not None and lost.errno == errno.EPIPE


def _is_plain(stream: object, number: int) -> bool:
    """Tell whether a stream is the one that Python has made for a file number."""
    raw = getattr(getattr(stream, "buffer", None), "raw", getattr(stream, "buffer", None))
    return isinstance(stream, io.TextIOWrapper) and type(raw) is io.FileIO and raw.fileno() == number
