"""The SQLite store, locked by another process in the middle of a training."""

import contextlib
import random
import sqlite3
import time
from collections.abc import Iterator
from functools import partial

from fault_groups.bench import WAITING, Bench, Try, side_by_side, sync
from fault_groups.ledger import Ledger, read_ledger
from fault_groups.server import BEGIN, how_it_ended

SECONDS = (90, 30, 10, 3)


def store(bench: Bench, rng: random.Random, times: int | None) -> Iterator[Try]:
    """Lock the database for 90 s and less; each once.

    Args:
        bench: where.
        rng: draws the locks where there are more than ``times``.
        times: so many of them only, none of 90 s.
    """
    chosen = SECONDS if times is None else rng.sample(SECONDS[1:], min(times, len(SECONDS) - 1))
    whole = read_ledger(f"sqlite:///{bench.undisturbed.parent}/outputs/mlflow.db")
    return side_by_side("store", [partial(_lock, bench, whole, seconds) for seconds in chosen], WAITING)


def _lock(bench: Bench, whole: Ledger, seconds: int) -> Try:
    folder = bench.place(f"store-{seconds}")
    database = folder / "outputs" / "mlflow.db"
    running = bench.train(folder)
    running.wait_for_epoch(BEGIN)
    with contextlib.closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")
    status = running.end()
    waited = bench.waited(running)
    lost = how_it_ended(running, status, waited)
    if unsent := sync(folder):
        lost += [unsent] if unsent.startswith("cxrnet") else []
    lost += bench.other_results(folder / "run") + read_ledger(f"sqlite:///{database}").lost_against(whole)
    return Try("store", f"SQLite locked for {seconds} s", lost, waited=waited)
