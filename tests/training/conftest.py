"""Trainings on the CPU."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cxrnet.training.schedule import Schedule


@pytest.fixture(scope="session")
def make_training() -> Callable:
    """Makes a training of a schedule's phases in a folder."""
    import lightning.pytorch as pl
    import torch

    from cxrnet.training.trainer import Training

    def make(schedule: Schedule, folder: Path, **changes) -> Training:
        settings = {
            "loss": torch.nn.CrossEntropyLoss(),
            "optimizer": torch.optim.Adam,
            "trainer": partial(pl.Trainer, accelerator="cpu", devices=1),
            "seed": 0,
        }
        return Training(schedule.phases, schedule, folder=folder, **{**settings, **changes})

    return make
