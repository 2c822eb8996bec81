"""The training of a configuration, and what it adds to Lightning's trainer, in a schedule with two phases."""

import dataclasses
import shutil

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from cxrnet.cli.app import compose_config
from cxrnet.core.config import plain_config
from cxrnet.errors import CxrnetError
from cxrnet.training.checkpoints import trained_so_far
from cxrnet.training.phases import run_phases
from cxrnet.training.schedule import Phase
from cxrnet.workflows.build import check_parts, make_training
from cxrnet.workflows.settings import Train

PHASES = (Phase("head", "head", 2, 1e-2), Phase("all", "all", 3, 1e-3))
SCHEDULE = {"head": None, "scratch": dataclasses.asdict(Phase("scratch", "all", 1, 1e-2)), "best_from": 0}
STEPS = 3  # an epoch has 18 images, 8 a batch

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*isinstance.*LeafSpec")

seen: list[tuple[int, int]] = []


class Counting(Callback):
    """Writes down which instance sees which epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        seen.append((id(self), trainer.current_epoch))


class Stopping(Callback):
    """Has enough after the first batch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = True


@pytest.fixture
def config():
    def make(*words: str) -> dict:
        return plain_config(compose_config(Train, ["trainer=cpu", "optimizer=adam", *words]))

    return make


@pytest.fixture
def train(config, make_network, make_data, tmp_path):
    """Trains as a run with these words does; gives the history."""

    def make(*words: str, phases=PHASES, trained=(), network=None):
        asked = {"phases": [dataclasses.asdict(phase) for phase in phases], **SCHEDULE}
        plain = config(*words)
        plain, data, folder = {**plain, "schedule": {**plain["schedule"], **asked}}, make_data(), tmp_path / "run"
        check_parts(plain, folder)
        pl.seed_everything(0, verbose=False)
        _, history = run_phases(network or make_network(), data, make_training(plain, data, True, folder), trained)
        return history.table()

    return make


def logged(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv")


def test_callbacks_are_used_and_made_anew_for_each_phase(train):
    seen.clear()
    train(f"+callbacks.mine={{_target_: {__name__}.Counting}}")
    first, second = dict.fromkeys(instance for instance, _ in seen)
    assert seen == [(first, 0), (first, 1), (second, 0), (second, 1), (second, 2)]


def test_steps_and_epochs_of_a_logger_run_on_over_the_phases(train, tmp_path):
    history = train("logger=csv", "callbacks=lr_monitor", "trainer.log_every_n_steps=1")
    table = logged(tmp_path / "run" / "csv" / "version_0")
    losses = table.dropna(subset="val/loss")
    assert losses["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert losses["val/loss"].tolist() == pytest.approx(history["val/loss"].tolist())
    rates = table.dropna(subset="lr-Adam").drop_duplicates("step")
    assert rates["step"].tolist() == list(range(5 * STEPS))
    assert rates["lr-Adam"].tolist() == [1e-2] * 2 * STEPS + [1e-3] * 3 * STEPS


def test_the_logger_of_a_run_that_is_resumed_goes_on_too(train, tmp_path, make_network):
    network = make_network()
    train("logger=csv", phases=PHASES[:1], network=network)
    shorter = Phase("all", "all", 1, 1e-3)
    train(phases=(PHASES[0], shorter), trained=trained_so_far(tmp_path / "run"), network=network)  # without a logger
    train("logger=csv", trained=trained_so_far(tmp_path / "run"), network=network)
    losses = logged(tmp_path / "run" / "csv" / "version_1").dropna(subset="val/loss")
    assert losses["epoch"].tolist() == [3, 4]
    assert losses["step"].tolist() == [4 * STEPS - 1, 5 * STEPS - 1]


def test_a_callback_of_lightning_that_saves_writes_into_the_runs_folder(train, tmp_path):
    train("+callbacks.each={_target_: lightning.pytorch.callbacks.ModelCheckpoint, save_top_k: -1}")
    names = {path.name for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt")}
    assert names == {"epoch=0-step=3.ckpt", "epoch=0-step=3-v1.ckpt", "epoch=1-step=6.ckpt", "epoch=1-step=6-v1.ckpt",
                     "epoch=2-step=9.ckpt"}  # fmt: skip
    assert [progress.name for progress in trained_so_far(tmp_path / "run")] == ["head", "all"]


def test_a_phase_that_a_callback_stops_in_its_first_epoch_is_validated_and_kept(train):
    history = train(f"+callbacks.stop={{_target_: {__name__}.Stopping}}")
    assert history["phase"].tolist() == ["head", "all"]
    assert not history[["train/loss", "val/loss"]].isna().any(axis=None)


def test_a_phase_without_an_epoch_is_one_line(train):
    timer = "{_target_: lightning.pytorch.callbacks.Timer, duration: {seconds: 0}}"
    with pytest.raises(CxrnetError, match=r"^callbacks: training was stopped before its first epoch"):
        train(f"+callbacks.timer={timer}")


OF_LIGHTNING = "{_target_: lightning.pytorch.callbacks."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("+callbacks.a=3", r"^callbacks.a: 3 names no class; give {_target_: <class>}"),
        ("+callbacks.a={_target_: builtins.dict}", "builtins.dict is no callback"),
        ("+logger.a={_target_: builtins.dict}", "builtins.dict is no logger"),
        (f"+callbacks.a={OF_LIGHTNING}Typo}}", "callbacks.Typo can't be made: .*'Typo'"),
        ("+logger.a={_target_: lightning.pytorch.loggers.CSVLogger}", "CSVLogger can't be made: .*save_dir"),
        ("logger=tensorboard", r"^logger.tensorboard: .*TensorBoardLogger can't be made: .*`pip install`"),
        ("callbacks=lr_monitor", "LearningRateMonitor needs a logger; give logger=csv"),
        (f"+callbacks.a={OF_LIGHTNING}EarlyStopping, monitor: val/loss}}", "no EarlyStopping: .*patience"),
        (f"+callbacks.a={OF_LIGHTNING}BackboneFinetuning}}", "no BackboneFinetuning: "),
        (f"+callbacks.a={OF_LIGHTNING}EMAWeightAveraging}}", "callbacks=weight_averaging"),
        (f"+callbacks.a={OF_LIGHTNING}TQDMProgressBar}}", "the console is cxrnet's own"),
        ("callbacks=weight_averaging callbacks.weight_averaging.decay=2", "weight_averaging.decay: .*between 0 and 1"),
        (
            f"+callbacks={{a: ${{.b}}, b: {OF_LIGHTNING}ModelCheckpoint}}}}",
            "^trainer: Found more than one ",
        ),
        ("trainer.profiler=foo", "trainer: .*`profiler`.*'simple'"),
        ("model.hidden=[-3]", r"^model.hidden: .*\[256\]"),
        ("model.backbone=alexnet", r"^model.backbone: 'alexnet' is not known; choose one of"),
        ("model.weights=nowhere.pt", r"^model.weights: 'nowhere.pt' is not a file"),
        ("model=custom_cnn model.weights=imagenet", r"^model.weights: there are no ImageNet weights"),
        ("loss.label_smoothing=2", r"^loss.label_smoothing: 2"),
        ("loss.class_weights=wrong", r"^loss.class_weights: 'wrong' is not known"),
        ("loss=focal loss.gamma=-1", r"^loss.gamma: -1"),
        ("+loss.x=3", r"^loss: .*'x'; leave it out"),
        ("data.classes=[a,b] +loss.class_weights={c:2}", r"^loss.class_weights: no class is called 'c'"),
        ("operating_points={a:2}", r"^operating_points"),
        ("schedule.monitor=val_loss", r"^schedule.monitor: 'val_loss' is no logged metric; use one of val/loss"),
        (
            "schedule.head.lr_schedule.name=step",
            r"^schedule: phase 'head': lr_schedule: .*is not known",
        ),
        ("schedule.head.trainable={last:x}", r"^schedule: phase 'head': trainable"),
        ("schedule.head.lr=-1", r"^schedule: phase 'head': no optimizer can be made: .*-1"),
        ("+optimizer.x=1", r"^schedule: phase 'head': no optimizer can be made: .*'x'"),
        ("experiment=demo schedule.scratch.epochs=2", r"^schedule: phase 'scratch': its warm-up takes 2 of 2 epochs"),
    ],
)
def test_a_mistake_is_one_line_before_images_are_read(config, tmp_path, words, message, monkeypatch):
    for package in ("TENSORBOARD", "TENSORBOARDX"):
        monkeypatch.setattr(f"lightning.fabric.loggers.tensorboard._{package}_AVAILABLE", False)
    plain = config(*([words] if " " in words.partition("=")[2].partition("{")[2] else words.split()))
    with pytest.raises(CxrnetError, match=message) as caught:
        check_parts(plain, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (("schedule.head.lr=1e-3",), "schedule.head.lr"),
        (("schedule.head.lr_schedule.warmup_epochs=1",), "schedule.head.lr_schedule.warmup_epochs"),
        (("schedule.head.epochs=3", "+finetune=true"), "schedule.head.epochs"),
        (("optimizer=sgd",), "optimizer"),
        (("optimizer.weight_decay=1", "schedule=head"), "optimizer.weight_decay"),
        (("callbacks=weight_averaging",), "callbacks"),
        (("trainer.gradient_clip_val=1",), "trainer.gradient_clip_val"),
        (("schedule.head.lr=1e-3", "schedule.head.solver=gradient"), ""),
        (("schedule.head.lr=1e-3", "model.hidden=[8]"), ""),
        (("schedule.head.decay=1", "loss=focal"), ""),
        (("schedule.head.keep=best", "schedule.views=0"), ""),
        (("optimizer=sgd", "+finetune=true"), ""),
        (("optimizer=sgd", "model.weights=none"), ""),
        (("schedule.max_epochs=3", "model.dropout=0"), ""),
    ],
)
def test_a_word_that_has_no_effect_in_a_head_that_is_fitted_at_once_is_refused(config, tmp_path, words, refused):
    torch.save({}, tmp_path / "weights.pt")
    given = ["model=custom_cnn", "model.hidden=[]", f"model.weights={tmp_path / 'weights.pt'}", *words]
    if not refused:
        check_parts(config(*given), tmp_path, given)
        return
    message = rf"^{refused}: has no effect, as the head is fitted at once, .*schedule\.head\.solver=gradient"
    with pytest.raises(CxrnetError, match=message):
        check_parts(config(*given), tmp_path, given)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("trainer.num_nodes=2", "trainer.num_nodes: 2, but nothing started processes on other machines; start the com"),
        ("trainer=fsdp", "trainer: fsdp is for GPUs, as a training on a CPU ended in NaN once; give trainer=ddp"),
    ],
)
def test_a_trainer_that_cannot_train_is_told(config, tmp_path, words, line):
    with pytest.raises(CxrnetError) as caught:
        check_parts(config("trainer.accelerator=cpu", "trainer.devices=2", *words.split()), tmp_path)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("name", ["torchrun", "srun"])
def test_processes_that_would_train_each_for_itself_are_refused(config, tmp_path, monkeypatch, name):
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}
    slurm = {"SLURM_PROCID": 0, "SLURM_LOCALID": 0, "SLURM_NODEID": 0, "SLURM_NTASKS": 2, "SLURM_NNODES": 1}
    if name == "srun":
        with monkeypatch.context() as patch:
            for variable, value in slurm.items():
                patch.setenv(variable, str(value))
            with pytest.raises(CxrnetError, match=r"^trainer: .*--ntasks=2.*; give --ntasks-per-node in its place"):
                check_parts(config("trainer=ddp", "trainer.accelerator=cpu"), tmp_path)
        slurm["SLURM_NTASKS_PER_NODE"] = 2
    for variable, value in {"torchrun": torchrun, "srun": slurm}[name].items():
        monkeypatch.setenv(variable, str(value))
    with pytest.raises(CxrnetError, match=f"^trainer: {name} started 2 processes, and 1 would train; give trainer=ddp"):
        check_parts(config(), tmp_path)
    with pytest.raises(CxrnetError, match=f"^trainer: {name} started 2 processes, and 3 would train"):
        check_parts(config("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=3"), tmp_path)
    assert check_parts(config("trainer=ddp", "trainer.accelerator=cpu"), tmp_path) == 2


AVERAGED = "callbacks=weight_averaging"


def val_loss(network, data) -> float:
    images, labels = data.arrays("val")
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(images[:]).unsqueeze(1))
    return torch.nn.functional.cross_entropy(logits, labels).item()


def test_the_average_of_the_weights_is_what_is_validated_and_kept(train, make_network, make_data):
    network = make_network()
    history = train(AVERAGED, network=network)
    assert val_loss(network, make_data()) == pytest.approx(history["val/loss"].min(), abs=1e-5)
    plain = train()
    assert (history["val/loss"] - plain["val/loss"]).abs().max() > 1e-2
    assert history["train/loss"][:2].tolist() == plain["train/loss"][:2].tolist()  # what trains is not averaged
    light = train(AVERAGED, "callbacks.weight_averaging.decay=1e-9")
    assert light["val/loss"].tolist() == pytest.approx(plain["val/loss"].tolist(), abs=1e-4)


def test_averaging_leaves_frozen_layers_bitwise_what_they_are(train, make_network):
    network, before = make_network(), make_network().backbone.state_dict()
    train(AVERAGED, phases=PHASES[:1], network=network)
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())


def test_averaging_goes_on_where_it_was_stopped(train, make_network, tmp_path):
    whole = train(AVERAGED)
    shutil.rmtree(tmp_path / "run")
    network = make_network()
    train(AVERAGED, phases=(PHASES[0], dataclasses.replace(PHASES[1], epochs=1)), network=network)
    resumed = train(AVERAGED, network=make_network(), trained=trained_so_far(tmp_path / "run"))
    assert resumed[["train/loss", "val/loss"]].equals(whole[["train/loss", "val/loss"]])


def test_what_lightning_refuses_when_training_begins_is_one_line(train):
    keeper = "{_target_: lightning.pytorch.callbacks.ModelCheckpoint, monitor: nothing}"
    with pytest.raises(
        CxrnetError, match=r"^trainer: .*monitor='nothing'.*; mend or leave out what was added"
    ) as caught:
        train(f"+callbacks.keeper={keeper}", phases=PHASES[:1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ("trainer.accumulate_grad_batches=2", "trainer.detect_anomaly=true", "trainer.inference_mode=false"),
        ("trainer.gradient_clip_val=0.1", "trainer.gradient_clip_algorithm=value", "optimizer.fused=false"),
        ("trainer.log_every_n_steps=0", "logger=csv"),
        ("trainer.deterministic=true", "trainer.benchmark=false", "trainer.profiler=simple"),
        ("trainer.profiler={_target_: lightning.pytorch.profilers.SimpleProfiler}",),
        ("trainer.benchmark=false", "trainer.strategy=auto", "trainer.precision=bf16-mixed", "optimizer.fused=false"),
    ],
)
def test_every_argument_that_is_used_trains_on_features_and_on_images(train, words):
    phases = [dataclasses.replace(phase, epochs=1) for phase in PHASES]
    assert train(*words, phases=phases)["phase"].tolist() == ["head", "all"]
