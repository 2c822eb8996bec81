import inspect

import lightning.pytorch as pl
import pytest

from cxrnet.cli.trainer_arguments import REFUSED, STRATEGIES, USED, check_arguments, refusal
from cxrnet.errors import CxrnetError

TARGET = {"_target_": "lightning.pytorch.Trainer", "_partial_": True, "accelerator": "cpu", "devices": 1}


def test_every_argument_of_lightning_is_either_used_or_refused():
    assert {*USED, *REFUSED} == set(inspect.signature(pl.Trainer).parameters)
    assert not set(USED) & set(REFUSED)


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ("max_epochs", "schedule.max_epochs"),
        ("min_epochs", "patience"),
        ("max_steps", "schedule.max_epochs"),
        ("max_time", "resume="),
        ("limit_train_batches", "data.limit"),
        ("limit_val_batches", "data.limit"),
        ("overfit_batches", "data.limit"),
        ("fast_dev_run", "trainer=debug"),
        ("check_val_every_n_epoch", "every epoch is validated"),
        ("default_root_dir", "hydra.run.dir"),
        ("num_nodes", "trainer.devices"),
        ("plugins", "trainer.precision"),
    ],
)
def test_what_others_decide_is_refused_with_what_to_give_instead(argument, instead):
    for target in ("lightning.pytorch.Trainer", "my.Trainer"):
        with pytest.raises(CxrnetError, match=f"^trainer.{argument}: .*{instead}") as caught:
            check_arguments({**TARGET, "_target_": target, argument: 2})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("gradient_clip", r"no such argument; did you mean trainer.gradient_clip_val\?"),
        ("max_epoch", "no such argument; max_epochs: .*; give schedule.max_epochs"),  # not one that is refused next
        ("foo", "no such argument; leave it out"),
    ],
)
def test_an_argument_that_no_trainer_has(argument, message):
    with pytest.raises(CxrnetError, match=f"^trainer.{argument}: .*{message}$"):
        check_arguments({**TARGET, argument: 1})
    check_arguments({**TARGET, "_target_": "my.Trainer", argument: 1})  # which may have it


@pytest.mark.parametrize("argument", USED)
def test_what_is_used_is_not_refused(argument):
    assert refusal(argument) is None


@pytest.mark.parametrize(
    ("argument", "value", "least"),
    [
        ("accumulate_grad_batches", 0, 1),
        ("accumulate_grad_batches", 1.5, 1),
        ("accumulate_grad_batches", None, 1),
        ("accumulate_grad_batches", {2: 4}, 1),
        ("log_every_n_steps", -1, 0),
        ("gradient_clip_val", -0.5, 0),
        ("gradient_clip_val", "1", 0),
        ("gradient_clip_val", True, 0),
    ],
)
def test_numbers_out_of_range(argument, value, least):
    with pytest.raises(CxrnetError, match=rf"^trainer.{argument}: .*number from {least} on$"):
        check_arguments({**TARGET, argument: value})
    check_arguments({**TARGET, argument: least, "gradient_clip_val": None})


@pytest.mark.parametrize("strategy", ["ddp_spawn", "fsdp", "deepspeed", {"_target_": "my.Strategy"}])
def test_a_strategy_whose_processes_have_a_part_of_the_network_or_are_not_heard(strategy):
    with pytest.raises(CxrnetError, match=r"^trainer.strategy: .* won't do; give one of auto, ddp, "):
        check_arguments({**TARGET, "strategy": strategy})
    for known in STRATEGIES:
        check_arguments({**TARGET, "strategy": known})


@pytest.mark.parametrize("argument", ["deterministic", "benchmark", "detect_anomaly", "inference_mode"])
def test_what_is_neither_on_nor_off(argument):
    with pytest.raises(CxrnetError, match=rf"^trainer.{argument}: foo won't do; give one of true, false"):
        check_arguments({**TARGET, argument: "foo"})
    for known in (True, False):
        check_arguments({**TARGET, argument: known})
