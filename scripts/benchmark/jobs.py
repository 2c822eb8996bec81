"""Jobs in processes of their own: fresh memory, fresh pools of threads, nothing warm but the disk."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
Numbers = dict[str, Any]
"""Measurements of a job: numbers by name, and facts in words."""


@dataclass(frozen=True)
class Job:
    """A function that is called in a process of its own.

    Attributes:
        name: unique in its group; shown.
        function: ``module:function`` of this folder; returns :data:`Numbers`.
        settings: its arguments, as JSON can hold them.
        needs: packages without which the contender isn't installed.
        python: an interpreter that runs the module as a script; ``None`` runs ``worker.py`` in this one.
        missing: why the contender isn't there, where that is known before.
    """

    name: str
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    python: str | None = None
    missing: str | None = None


@dataclass
class Measurement:
    """All repeats of one job.

    Attributes:
        job: what is done.
        repeats: what each repeat measured.
        missing: why the contender isn't there.
        failed: last line of the error that ended the job.
    """

    job: Job
    repeats: list[Numbers] = field(default_factory=list)
    missing: str | None = None
    failed: str | None = None

    @property
    def medians(self) -> Numbers:
        """The median of every number; a fact in words is that of the first repeat."""
        return {
            name: median(each[name] for each in self.repeats) if isinstance(value, int | float) else value
            for name, value in (self.repeats[0] if self.repeats else {}).items()
        }

    def run(self, log: Path) -> None:
        """Do the job once more, however long it takes; what its process says is added to ``log``.

        Ctrl-C or a signal ends the job's process and those that it has started.
        """
        self.missing = self.job.missing
        if self.missing is not None:
            return
        asked = {"function": self.job.function, "settings": dict(self.job.settings), "needs": self.job.needs}
        request = json.dumps(asked)
        code, said, complained = _process(self.job, request)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"== {self.job.name}\n{request}\n{complained}{said}\n")
        if code:
            lines = [line.strip() for line in complained.splitlines() if line.strip()]
            self.failed = (lines or [f"exit status {code}"])[-1].removeprefix("cxrnet.errors.CxrnetError: ")
            return
        answer = json.loads(said.splitlines()[-1])  # libraries may have printed something before
        self.missing = answer.get("missing")
        if self.missing is None:
            self.repeats.append(answer["numbers"])


def _process(job: Job, request: str) -> tuple[int, str, str]:
    if job.python is None:
        command = [sys.executable, str(HERE / "worker.py")]
    else:  # isolated: this folder is no place to import from
        command = [job.python, "-I", str(HERE / f"{job.function.partition(':')[0]}.py")]
    with TemporaryDirectory(ignore_cleanup_errors=True) as own:
        # torch.compile keeps what it has compiled for all processes; here each one begins anew.
        environment = {**os.environ, "TMPDIR": own, "TORCHINDUCTOR_CACHE_DIR": f"{own}/compiled"}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                said, complained = process.communicate(request)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
    return process.returncode, said, complained
