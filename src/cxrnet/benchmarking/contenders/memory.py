"""How much memory a job took."""

import resource
import sys
from pathlib import Path


def peak_memory(device: str) -> dict[str, float]:
    """The most that this process has held so far, in MB: ``memory_mb``, and ``device_memory_mb`` on CUDA."""
    if device != "cuda":
        return {"memory_mb": peak_resident()}
    import torch

    return {"memory_mb": peak_resident(), "device_memory_mb": torch.cuda.max_memory_reserved() / 1e6}


def peak_resident() -> float:
    """The most main memory that this process has held so far, in MB; pages of mapped files count."""
    status = Path("/proc/self/status")
    if status.is_file():  # the number that getrusage gives begins with the memory of the process that started this one
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used / 1000
