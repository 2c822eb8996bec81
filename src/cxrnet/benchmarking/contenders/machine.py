"""What a figure was measured on. No contender, but it runs as one: the command itself never touches the accelerator."""

import os
import platform
from pathlib import Path
from typing import Any


def facts(device: str) -> dict[str, Any]:
    """Processor, memory, accelerator and versions; ``device`` is what ``device`` of the config comes to."""
    import torch

    from cxrnet.core.provenance import package_versions
    from cxrnet.data.images.reader import processors
    from cxrnet.models.bundle import device_of

    chosen = device_of(device)
    return {
        "device": chosen.type,
        "accelerator": torch.cuda.get_device_name() if chosen.type == "cuda" else None,
        "processor": _processor(),
        "cores": processors(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(_memory() / 1e9, 1),
        "system": platform.platform(),
        "versions": package_versions(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> int:
    """Bytes; 0 where the system doesn't tell."""
    if not hasattr(os, "sysconf"):
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
