"""A real ``mlflow server`` behind a proxy that makes it fail, in the middle of a training and beyond its end."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fault_groups.bench import LONGEST, WAITING, Bench, Running, Try, after, last_line, side_by_side, sync
from fault_groups.ledger import Ledger, read_ledger
from fault_groups.proxy import Fault, Proxy, proxy_before

LONGEST_WAIT = 2.0  # seconds that training may wait for the server in one epoch
BEGIN = 5  # epochs that are done when a fault begins


@dataclass(frozen=True)
class ServerFault:
    """A fault and when it is in force.

    Attributes:
        name: one row of the table.
        fault: what happens to requests; ``None``: nothing.
        begin: epochs that are done when it begins; 0: before the run starts.
        seconds: how long it lasts at most; ``None``: until the run has ended, however it does.
        killed: the run is killed when the fault begins, and resumed while it lasts.
    """

    name: str
    fault: Fault | None
    begin: int = BEGIN
    seconds: float | None = None
    killed: bool = False


FAULTS = [
    ServerFault("healthy server, sent twice", None),
    ServerFault("down for 3 s", Fault("refuse"), seconds=3),
    ServerFault("down until the run's end", Fault("refuse")),
    ServerFault("down from the start", Fault("refuse"), begin=0),
    ServerFault("500 for 2 s", Fault("error"), seconds=2),
    ServerFault("500 for 8 s", Fault("error"), seconds=8),
    ServerFault("500 until the run's end", Fault("error")),
    ServerFault("answers in {delay:g} s, for 40 s", Fault("delay"), seconds=40),
    ServerFault("answers in {delay:g} s, until the run's end", Fault("delay"), begin=20),
    ServerFault("connections dropped after the write, for 3 s", Fault("drop"), seconds=3),
    ServerFault("connections dropped after the write, until the run's end", Fault("drop")),
    ServerFault("metrics answered by 500 until the run's end", Fault("error", "runs/log-batch"), begin=1),
    ServerFault("files answered by 500 until the run's end", Fault("error", "PUT ")),
    ServerFault("logged models: dropped after the write, until the run's end", Fault("drop", "logged-models")),
    ServerFault("runs/create answered by 500, for 30 s", Fault("error", "runs/create"), begin=0, seconds=30),
    ServerFault("runs/create dropped after the write, for 30 s", Fault("drop", "runs/create"), begin=0, seconds=30),
    ServerFault("runs/update answered by 500 until the run's end", Fault("error", "runs/update")),
    ServerFault("runs/update answered by 500 while a killed run resumes", Fault("error", "runs/update"), killed=True),
]


def server(bench: Bench, rng: random.Random, times: int | None, delay: float) -> Iterator[Try]:
    """Try every fault once.

    Args:
        bench: where.
        rng: draws the faults where there are more than ``times``.
        times: so many of them only.
        delay: seconds after which delayed answers come.
    """
    chosen = FAULTS if times is None else rng.sample(FAULTS, min(times, len(FAULTS)))
    whole = read_ledger(f"sqlite:///{bench.undisturbed.parent}/outputs/mlflow.db")
    with mlflow_server(bench.place("server")) as address:
        yield from side_by_side(
            "server",
            [
                partial(_try, bench, whole, address, f"server-{number}", fault, delay)
                for number, fault in enumerate(chosen)
            ],
            WAITING,
        )


def _try(bench: Bench, whole: Ledger, address: str, name: str, planned: ServerFault, delay: float) -> Try:
    folder = bench.place(name)
    fault = planned.fault
    if fault and fault.kind == "delay":
        fault = Fault("delay", fault.paths, delay)
    title = planned.name.format(delay=delay)
    with proxy_before(address) as proxy:
        where = [f"tracking.uri={proxy.uri}", f"tracking.experiment={name}"]
        if planned.begin == 0:
            proxy.fault = fault
        running = bench.train(folder, *where)
        if planned.begin:
            running.wait_for_epoch(planned.begin)
            if planned.killed:
                running.send(signal.SIGKILL)
                running.end()
            proxy.fault = fault
            if planned.killed:
                running = Running(folder, "cxrnet.train", "resume=run")
        status = _end(running, proxy, planned.seconds)
        hit = proxy.hit
        refused = refused_at_start(running, status)
        unsent = "" if refused else sync(folder)
        if fault is None and not unsent:
            unsent = sync(folder)
    waited = bench.waited(running)
    note = f"{hit} requests hit, {running.ended - (running.epochs or [running.began])[-1]:.0f} s after the last epoch"
    if refused:
        held = read_ledger(address, name)
        lost = [f"{len(held.statuses)} MLflow runs of a run that was refused"] if held.statuses else []
        return Try("server", title, lost, f"refused at the start: {refused}")
    lost = how_it_ended(running, status, waited)
    lost += [unsent] if unsent.startswith("cxrnet") else []
    lost += bench.other_results(folder / "run") + read_ledger(address, name).lost_against(whole)
    return Try("server", title, lost, note, waited)


def _end(running: Running, proxy: Proxy, seconds: float | None) -> int | None:
    """Wait for the end of a run; its fault ends after so many seconds, or with it."""

    def mend() -> None:
        if proxy.fault is not None:
            proxy.fault = None

    with after(LONGEST if seconds is None else seconds, mend):
        return running.end()


def how_it_ended(running: Running, status: int | None, waited: float | None) -> list[str]:
    """Say what is wrong with the way in which a run went on and ended."""
    lost = [] if status == 0 else ["the run hangs" if status is None else f"the run ends with {status}"]
    if status:
        lost[-1] += f" ({last_line(running.text)})"
    lost += ["a traceback"] if "Traceback" in running.text else []
    lost += [f"an epoch waited {waited:.1f} s"] if waited is not None and waited > LONGEST_WAIT else []
    return lost


def refused_at_start(running: Running, status: int | None) -> str:
    """Find the line by which a command refused to begin; empty where it didn't."""
    lines = [line for _, line in running.lines if line.strip()]
    return lines[0] if status == 2 and len(lines) == 1 else ""


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Run ``mlflow server`` with its database and artifacts in a folder; yield its address.

    Raises:
        RuntimeError: it doesn't start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts"]
    quick = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *address, *store],
            stdout=log, stderr=log, cwd=folder, env={**os.environ, **quick}, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it starts workers of its own
        process.wait()


def _wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(480):
        with suppress(OSError), urllib.request.urlopen(address, timeout=1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.25)
    raise RuntimeError(f"the MLflow server did not start: {log.read_text(errors='replace')[-2000:]}")
