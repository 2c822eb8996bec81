"""The launcher of a distributed training, where the user starts its processes: torchrun, or Slurm's srun.

Otherwise Lightning starts them itself, on one machine, with the command line of the first one.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

from cxrnet.errors import CxrnetError

PATIENCE = 300.0
"""Seconds that a process waits for the others to start."""


@dataclass(frozen=True)
class Launch:
    """What a launcher started.

    Attributes:
        name: name of the launcher.
        processes: on all machines, 2 or more.
        rank: rank of this process, from 0.
        on_machine: number of processes on each machine.
    """

    name: str
    processes: int
    rank: int
    on_machine: int


def launched() -> Launch | None:
    """Tell what started this process with others; ``None`` where it was started alone, or by another one of cxrnet.

    torchrun comes first, as for Lightning: it may run inside Slurm.
    """
    names = os.environ
    if "TORCHELASTIC_RUN_ID" in names:
        found = Launch("torchrun", *(int(names[each]) for each in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE")))
    elif "SLURM_PROCID" in names and "SLURM_NTASKS" in names and names.get("SLURM_JOB_NAME") not in _BY_HAND:
        processes, machines = int(names["SLURM_NTASKS"]), int(names.get("SLURM_NNODES", 1))
        found = Launch("srun", processes, int(names["SLURM_PROCID"]), processes // machines)
    else:
        return None
    return found if found.processes > 1 else None


_BY_HAND = ("bash", "interactive")  # a shell in a job of Slurm, by Lightning's convention


def said_by_the_first(launch: Launch, text: str = "", patience: float = PATIENCE) -> str:
    """Tell the other processes a text, in the first one; wait for it in all others. Return that text.

    Raises:
        CxrnetError: the processes don't find each other.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # takes a second or two, and only here

    try:
        own = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        host, port, key = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", "0")), "cxrnet"
        if launch.name == "srun":
            from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

            slurm = SLURMEnvironment()
            host, port = slurm.main_address, slurm.main_port
        else:
            key += os.environ.get("TORCHELASTIC_RESTART_COUNT", "")  # what was said before a restart stays there
        first = launch.rank == 0
        store = TCPStore(
            host, port + own, is_master=own and first, timeout=timedelta(seconds=patience), wait_for_workers=False
        )
        if first:
            store.set(key, text)
            if own:  # which ends with this process
                store.wait([f"{key} {rank}" for rank in range(1, launch.processes)])
            return text
        text = store.get(key).decode()
        store.set(f"{key} {launch.rank}", "heard")
    except (RuntimeError, OSError) as error:
        raise CxrnetError(
            f"trainer: process {launch.rank} of the {launch.processes} that {launch.name} started didn't find the "
            f"others in {patience:g} seconds; see what ended them, or whether {host}:{port} can be reached"
        ) from error
    return text
