import inspect
from dataclasses import fields

import lightning.pytorch as pl
import pytest

from cxrnet.cli.trainer_arguments import REFUSED, Trainer, refusal
from cxrnet.errors import CxrnetError

USED = {each.name for each in fields(Trainer) if not each.name.startswith("_")}


def test_every_argument_of_lightning_is_either_used_or_refused():
    parameters = inspect.signature(pl.Trainer).parameters
    assert USED | REFUSED.keys() == set(parameters)
    assert not USED & REFUSED.keys()


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ("max_epochs", "schedule.max_epochs"),
        ("callbacks", "callbacks=<option>"),
        ("logger", "logger=<option>"),
        ("max_time", "resume="),
        ("limit_train_batches", "data.limit"),
        ("fast_dev_run", "trainer=debug"),
        ("default_root_dir", "hydra.run.dir"),
        ("sync_batchnorm", "all devices as it is"),
        ("gradient_clip", r"did you mean trainer.gradient_clip_val\?"),
        ("max_epoch", "max_epochs: .*schedule.max_epochs"),  # not one that is refused next
        ("foo", "no such argument; leave it out"),
    ],
)
def test_an_argument_that_is_refused_is_told_with_what_to_give(argument, instead):
    line = refusal(argument)
    with pytest.raises(CxrnetError, match=f"^trainer.{argument}: .*{instead}"):
        raise CxrnetError(line)
    assert "\n" not in line


@pytest.mark.parametrize(
    "arguments",
    [
        {"accumulate_grad_batches": 0},
        {"log_every_n_steps": -1},
        {"gradient_clip_val": -0.5},
        {"deterministic": "foo"},
        {"deterministic": True},  # while benchmark is on
        {"deterministic": 1},
        {"devices": True},
        {"devices": 0},
        {"devices": [True]},
        {"devices": 1.5},
        {"num_nodes": 0},
        {"profiler": True},
    ],
)
def test_what_is_out_of_range_or_does_not_go_together(arguments):
    with pytest.raises(CxrnetError, match=f"^trainer.{next(iter(arguments))}: "):
        Trainer(**arguments)
    for devices in (1, -1, [0, 1], "auto", "2", "0,1"):
        Trainer(devices=devices)
    Trainer(deterministic="warn", benchmark=False, gradient_clip_val=0, log_every_n_steps=0)
