"""One job of a contender, in a process of its own: fresh memory, fresh pools of threads, nothing warm but the disk."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Numbers = dict[str, Any]
"""What a job measured: numbers by name, and facts in words."""

CONTENDERS = "cxrnet.benchmarking.contenders"


@dataclass(frozen=True)
class Job:
    """A function that is called in a process of its own.

    Attributes:
        name: unique in its group; shown.
        function: ``module:function`` below :data:`CONTENDERS`; returns :data:`Numbers`.
        settings: its arguments, as JSON can hold them.
        needs: packages without which the contender isn't installed.
        interpreter: a Python with the contender's packages in place of this one; the module runs there as a script.
        missing: why the contender isn't there, where that is known before.
    """

    name: str
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    interpreter: str | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a job: one of the three.

    Attributes:
        numbers: that it measured.
        missing: why the contender isn't there.
        failed: the last line of what went wrong.
    """

    numbers: Numbers | None = None
    missing: str | None = None
    failed: str | None = None


def run_job(job: Job, log: Path) -> Answer:
    """Run a job and wait for it, however long that is: a contender may need hours, and only its user knows.

    Whatever ends the waiting, Ctrl-C or a signal, ends the process and those that it has started.

    Args:
        job: what to do.
        log: file to which the process's words are added.
    """
    if job.missing is not None:
        return Answer(missing=job.missing)
    request = {"function": job.function, "settings": dict(job.settings), "needs": list(job.needs)}
    with TemporaryDirectory(ignore_cleanup_errors=True) as own:  # a process that is killed can't tidy up
        # torch.compile keeps what it has compiled for all processes: here each one begins anew.
        environment = {**os.environ, "TMPDIR": own, "TORCHINDUCTOR_CACHE_DIR": f"{own}/compiled"}
        with subprocess.Popen(
            _command(job),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                said, complained = process.communicate(json.dumps(request))
            except BaseException:
                _end(process)
                raise
    with log.open("a", encoding="utf-8") as file:
        file.write(f"== {job.name}\n{json.dumps(request)}\n{complained}{said}\n")
    if process.returncode:
        lines = [line.strip() for line in complained.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit status {process.returncode}"
        return Answer(failed=reason.removeprefix("cxrnet.errors.CxrnetError: "))
    answer = json.loads(said.splitlines()[-1])  # libraries may have said something before
    return Answer(numbers=answer.get("numbers"), missing=answer.get("missing"))


def _end(process: subprocess.Popen[str]) -> None:
    """End a process, and with it the group that it leads."""
    if hasattr(os, "killpg"):  # not on Windows
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _command(job: Job) -> list[str]:
    if job.interpreter is None:
        return [sys.executable, "-m", "cxrnet.benchmarking.worker"]
    module = find_spec(f"{CONTENDERS}.{job.function.partition(':')[0]}")
    if module is None or module.origin is None:
        raise ModuleNotFoundError(job.function)
    # Isolated: the script's folder is no place to import from.
    return [job.interpreter, "-I", module.origin]
