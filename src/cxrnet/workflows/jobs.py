"""A job of a sweep in a process of its own, wherever a launcher runs it. Nothing heavy is imported here."""

import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from cxrnet.core import console
from cxrnet.core.process import share_machine

CONSOLE = "console"  # folder of what the jobs print, a file each
_held: list[FileLock] = []  # of this process, for its life


@dataclass(frozen=True)
class Job:
    """A job that is sent to another process.

    Attributes:
        number: number of the job, from 0.
        overrides: overrides of the job.
        config: config of the sweep, with Hydra's part.
        context: context of Hydra.
        task: the command.
        share: the number of jobs on one machine at once, which share its processors and GPUs; None: the launcher has
            given the job its own.
    """

    number: int
    overrides: Sequence[str]
    config: DictConfig
    context: HydraContext
    task: TaskFunction
    share: int | None

    def __call__(self, state: dict[type, Any]) -> JobReturn:
        """Run the job; what it prints goes to ``console/<number>.txt`` in the sweep's folder.

        Args:
            state: Hydra's, of the process that sends the job.
        """
        if self.share is not None:
            take_share(self.share)
        setup_globals()
        Singleton.set_state(state)
        config = self.context.config_loader.load_sweep_config(self.config, list(self.overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = self.number
        HydraConfig.instance().set_config(config)
        folder = Path(str(config.hydra.sweep.dir)) / CONSOLE
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f"{self.number}.txt").open("a", encoding="utf-8", buffering=1)
        with file, redirect_stdout(file), redirect_stderr(file):
            done = run_job(
                hydra_context=self.context,
                task_function=self.task,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        # The exception itself may not be fit to be sent to another process.
        return failed(done._return_value) if done.status == JobStatus.FAILED else done


def failed(error: object) -> JobReturn:
    """Make the result of a job that failed, from the exception or its text."""
    result = JobReturn()
    result.status = JobStatus.FAILED
    last_line = (str(error).strip() or type(error).__name__).splitlines()[-1]
    result.return_value = RuntimeError(last_line)
    return result


def say_ends(jobs: Sequence[Job], ended: Iterable[tuple[int, JobReturn]]) -> list[JobReturn]:
    """Say how each job ended, as it ends; return the results in the order of the jobs.

    Args:
        jobs: jobs of the launcher.
        ended: place of a job among them, and its result, in whatever order they end.
    """
    results: dict[int, JobReturn] = {}
    for place, result in ended:
        results[place] = result
        if result.status == JobStatus.FAILED:
            how = f"failed: {result._return_value}"
        elif isinstance(result._return_value, str):
            how = result._return_value
        elif math.isnan(result._return_value):  # refused, which its own console says
            how = f"failed, see {CONSOLE}/{jobs[place].number}.txt"
        else:
            how = f"done, score {result._return_value:.4f}"
        console.say(f"job {jobs[place].number}", f"{' '.join(jobs[place].overrides)}: {how}")
    return [results[place] for place in range(len(jobs))]


def take_share(jobs: int) -> None:
    """Take a part of the machine's processors and of ``schedule.features_gb``, and a GPU, for the rest of this process.

    Must come before torch is imported, which reads the number of threads.

    Args:
        jobs: at once on this machine.
    """
    if _held:
        return
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, processors // jobs)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(min(threads, int(os.environ.get(name, threads))))
    share_machine(jobs)
    place = _free_place(jobs)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of(place, visible.split(","))


def _end_with_parent(parent: int) -> None:
    """End this process as a signal would when the command that started it is gone, so that its job can be resumed."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def gpu_of(place: int, gpus: Sequence[str]) -> str:
    """Return the GPU of a process: they are handed round."""
    return gpus[place % len(gpus)]


def _free_place(jobs: int) -> int:
    """Take the first place on this machine that no other process of this sweep's launcher holds."""
    top = Path(tempfile.gettempdir()) / f"cxrnet-places-{os.getppid()}"
    top.mkdir(exist_ok=True)
    for place in range(jobs):
        lock = FileLock(top / str(place))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _held.append(lock)
        return place
    return 0
