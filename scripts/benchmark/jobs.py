"""Jobs in processes of their own: fresh memory, fresh pools of threads, nothing warm but the disk.

As a script, the process of a job: reads what to do from standard input, prints what came of it as one line of JSON.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich import get_console

from cxrnet.core.process import quick_imports

Numbers = dict[str, Any]
"""Measurements of a job: numbers by name, and facts in words."""


@dataclass
class Job:
    """A function that is called in a process of its own, and what came of it."""

    name: str  # unique in its group; shown
    function: str  # module:function of this folder; returns Numbers
    settings: Mapping[str, Any] = field(default_factory=dict)  # its arguments, as JSON can hold them
    python: str | None = None  # an interpreter that runs the module as a script; None: this one calls the function
    missing: str | None = None  # why the contender isn't there, where that is known before or the process says so
    failed: str | None = None  # last line of the error that ended it
    repeats: list[Numbers] = field(default_factory=list)  # what each run measured

    @property
    def medians(self) -> Numbers:
        """The median of every number; a fact in words is that of the first run."""
        return {
            name: median(each[name] for each in self.repeats) if isinstance(value, int | float) else value
            for name, value in (self.repeats[0] if self.repeats else {}).items()
        }

    def run(self, log: Path) -> None:
        """Do it once more, however long it takes; what its process says is added to ``log``.

        Ctrl-C or a signal ends the process and those that it has started.
        """
        command, request = [sys.executable, __file__], json.dumps([self.function, dict(self.settings)])
        if self.python is not None:  # isolated: this folder is no place to import from
            command = [self.python, "-I", str(Path(__file__).with_name(f"{self.function.partition(':')[0]}.py"))]
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
        with log.open("a", encoding="utf-8") as file:
            file.write(f"== {self.name}\n{request}\n{complained}{said}\n")
        if process.returncode:
            lines = complained.strip().splitlines() or [f"exit status {process.returncode}"]
            self.failed = lines[-1].strip().removeprefix("cxrnet.errors.CxrnetError: ")
            return
        answer = json.loads(said.splitlines()[-1])  # libraries may have printed something before
        self.missing = answer.pop("missing", None)
        self.repeats += [answer] if self.missing is None else []


if __name__ == "__main__":
    get_console().quiet = True
    function, settings = json.load(sys.stdin)
    module, _, name = function.partition(":")
    with quick_imports():  # as every command of cxrnet does
        contender = import_module(module)
    print("\n" + json.dumps(getattr(contender, name)(**settings)))
