"""A bar for work that lasts; where there is no terminal, a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY = 30.0  # seconds, without a terminal


@contextmanager
def bar(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how far work has come.

    Args:
        what: is done, as ``reading images``.
        total: steps of the work.
        done: steps that were done before.

    Yields:
        A function that is told how many further steps are done.
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
