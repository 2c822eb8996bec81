"""The random numbers that a process would draw next: read, saved in a checkpoint and set again."""

import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

RandomState = dict[str, Any]  # plain values and tensors, which a checkpoint holds without code


def random_state(stream: torch.Generator | None) -> RandomState:
    """Return the state of torch's, numpy's and Python's generators, and of ``stream`` where there is one."""
    numpy: dict[str, Any] = dict(np.random.get_state(legacy=False))  # noqa: NPY002 (others draw from it)
    numpy["state"] = {**numpy["state"], "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64))}
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if _on_gpu() else None,
        "numpy": numpy,
        "python": random.getstate(),
        "stream": None if stream is None else stream.get_state(),
    }


def set_random_state(state: RandomState, stream: torch.Generator | None) -> None:
    """Set the generators to what :func:`random_state` returned; one that it lacks stays as it is."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and _on_gpu():
        torch.cuda.set_rng_state(state["cuda"])
    key = state["numpy"]["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**state["numpy"], "state": {**state["numpy"]["state"], "key": key}})  # noqa: NPY002
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    if stream is not None and state["stream"] is not None:
        stream.set_state(state["stream"])


def _on_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def of_all_processes(state: RandomState) -> list[RandomState]:
    """Return the states of all processes, in the order of their ranks; every process must call it."""
    if not dist.is_initialized():
        return [state]
    states: list[RandomState] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(states, state)
    return states
