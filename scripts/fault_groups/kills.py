"""Runs that are killed or stopped at random moments, and resumed until they are done."""

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fault_groups.bench import EPOCHS, Bench, Running, Try, last_line, side_by_side, sync
from fault_groups.ledger import Ledger, read_ledger

KILLS = 30
STOPS = {
    "SIGTERM": [signal.SIGTERM],
    "SIGHUP": [signal.SIGHUP],
    "Ctrl-C": [signal.SIGINT],
    "Ctrl-C twice": [signal.SIGINT, signal.SIGINT],
}
SLOWEST_STOP = 6.0  # seconds from the first signal to the end of the process
DRAWS = 5  # moments that are drawn before a run is taken as one that can't be hit


Moment = tuple[str, float]  # so many seconds after a file of the run is there; "": after the process began


def kills(bench: Bench, rng: random.Random, times: int | None) -> Iterator[Try]:
    """Kill 30 runs with SIGKILL and 4 more at the two places that are easily missed, and stop each way once.

    A fourth of the 30 is killed in its resumption again.

    Args:
        bench: where.
        rng: the moments are drawn from it: of n kills one in each n-th of the undisturbed run.
        times: so many kills, and one at each of the two places, instead.
    """
    tries: list[Callable[[], Try]] = []
    whole = read_ledger(_store(bench.undisturbed.parent))
    number_of_kills = times or KILLS
    for number in range(number_of_kills):
        slice_of_run = bench.seconds / number_of_kills
        moments = [("", rng.uniform(number, number + 1) * slice_of_run) for _ in range(DRAWS)]
        again = rng.uniform(0, bench.seconds) if number % 4 == 3 else None
        tries.append(partial(_kill, bench, whole, f"kill-{number}", moments, again))
    sending = (bench.undisturbed / "run.json").stat().st_mtime - (bench.undisturbed / "report.html").stat().st_mtime
    for file, longest, often in (("run.json", 0.2, 2), ("report.html", sending, 2)):
        for number in range(1 if times else often):
            moments = [(file, rng.uniform(0, longest)) for _ in range(DRAWS)]
            tries.append(partial(_kill, bench, whole, f"kill-after-{file}-{number}", moments, None))
    for name, signals in STOPS.items():
        # Before the record Python's own handlers answer.
        moments = [("run.json", rng.uniform(0, bench.seconds / 2)) for _ in range(DRAWS)]
        tries.append(partial(_stop, bench, whole, name, name, signals, moments))
    return side_by_side("kills", tries)


def _kill(bench: Bench, whole: Ledger, name: str, moments: list[Moment], again: float | None) -> Try:
    for draw, moment in enumerate(moments):
        folder = bench.place(f"{name}-{draw}")
        running = bench.train(folder)
        if _send_at(running, folder / "run", moment, [signal.SIGKILL]):
            break
    where = _where(folder / "run", running)
    if again is not None and (resumed := _go_on(bench, folder)):
        _send_at(resumed, folder / "run", ("", again), [signal.SIGKILL])
    note = f"{moment[1]:.2f} s after {moment[0] or 'the start'}" + ("" if again is None else f", then at {again:.1f} s")
    return Try("kills", f"SIGKILL {where}", _finish(bench, whole, folder), note)


def _stop(
    bench: Bench, whole: Ledger, name: str, fault: str, signals: list[signal.Signals], moments: list[Moment]
) -> Try:
    for draw, moment in enumerate(moments):
        folder = bench.place(f"{name}-{draw}")
        running = bench.train(folder)
        if _send_at(running, folder / "run", moment, signals):
            break
    took = running.ended - running.sent
    note = f"stopped after {took:.1f} s, {_where(folder / 'run', running)}"
    slow = took > max(SLOWEST_STOP, bench.seconds / 2)  # a machine that is busy with other things takes longer
    lost = ["slow to stop"] if slow else []
    lost += ["a traceback"] if "Traceback" in running.text else []
    return Try("kills", fault, lost + _finish(bench, whole, folder), note)


def _send_at(running: Running, run: Path, moment: Moment, signals: list[signal.Signals]) -> bool:
    """Send signals at a moment, and wait for the end of the command; return whether it was still running."""
    file, seconds = moment
    while file and running.at_work and not (run / file).is_file():
        time.sleep(0.005)
    since = time.monotonic() if file else running.began
    while running.at_work and time.monotonic() < since + seconds:
        time.sleep(0.005)
    at_work = running.at_work
    for place, number in enumerate(signals):
        time.sleep(0.3 if place else 0)
        running.send(number)
    running.end()
    return at_work


def _go_on(bench: Bench, folder: Path) -> Running | None:
    """Start what goes on with a run: its resumption, or the run where nothing of it is there; None where it is done."""
    status = _status(folder / "run")
    if status is None:
        return bench.train(folder)
    return None if status == "FINISHED" else Running(folder, "cxrnet.train", "resume=run")


def _finish(bench: Bench, whole: Ledger, folder: Path) -> list[str]:
    """Go on with a run until it is done; return what was lost in the end."""
    running = _go_on(bench, folder)
    if running is not None and (status := running.end()) != 0:
        reason = "it hangs" if status is None else last_line(running.text).replace(f"{folder}/", "")
        held = ", ".join(read_ledger(_store(folder)).statuses) or "nothing"
        return [f"can't be resumed ({reason}), MLflow holds: {held}"]
    lost = bench.other_results(folder / "run")
    if (missing := read_ledger(_store(folder)).lost_against(whole)) and not sync(folder):
        missing = read_ledger(_store(folder)).lost_against(whole)
    return lost + missing


def _status(run: Path) -> str | None:
    try:
        return str(json.loads((run / "run.json").read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, KeyError):
        return None


def _store(folder: Path) -> str:
    return f"sqlite:///{folder}/outputs/mlflow.db"


def _where(run: Path, running: Running) -> str:
    """Name the part of a run that a signal hit."""
    epochs = len(running.epochs)
    status = _status(run)
    parts = {
        "before the run's record (started anew)": status is None,
        "after the run's end": status == "FINISHED",
        "before the configuration": not (run / "config.yaml").is_file(),
        "in set-up": epochs == 0,
        "between phases": 0 < epochs < EPOCHS and epochs % (EPOCHS // 4) == 0,
        "in a phase": epochs < EPOCHS,
        "in evaluation": not (run / "report.html").is_file(),
    }
    return next((part for part, here in parts.items() if here), "after the report")
