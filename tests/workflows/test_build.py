"""The training of a configuration, and what it adds to Lightning's trainer, in a schedule with two phases."""

import dataclasses

import lightning.pytorch as pl
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback

from cxrnet.cli.app import config_folder
from cxrnet.cli.trainer_arguments import check_arguments
from cxrnet.core.config import plain_config
from cxrnet.errors import CxrnetError
from cxrnet.training.checkpoints import trained_so_far
from cxrnet.training.phases import run_phases
from cxrnet.training.schedule import Phase
from cxrnet.workflows.build import check_trainer, make_training

LR_MONITOR = "{_target_: lightning.pytorch.callbacks.LearningRateMonitor}"
PHASES = (Phase("head", "head", 2, 1e-2), Phase("all", "all", 3, 1e-3))
SCHEDULE = {"_target_": "cxrnet.training.schedule.Schedule", "monitor": "val/loss", "views": 1, "features_gb": 1,
            "best_from": 0, "scratch": {"_target_": "cxrnet.training.schedule.Phase", "name": "scratch",
                                        "trainable": "all", "epochs": 1, "lr": 1e-2}}  # fmt: skip
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
        with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
            config = plain_config(compose("train", ["trainer=cpu", "optimizer=adam", *words]))
        check_arguments(config["trainer"])
        return config

    return make


@pytest.fixture
def train(config, make_network, make_data, tmp_path):
    """Trains as a run with these words does; gives the history."""

    def make(*words: str, phases=PHASES, trained=(), network=None):
        target = {"_target_": "cxrnet.training.schedule.Phase"}
        asked = {**SCHEDULE, "phases": [{**target, **dataclasses.asdict(phase)} for phase in phases]}
        plain, data, folder = {**config(*words), "schedule": asked}, make_data(), tmp_path / "run"
        check_trainer(plain["trainer"], plain["optimizer"], folder)
        pl.seed_everything(0, verbose=False)
        _, history = run_phases(network or make_network(), data, make_training(plain, data, True, folder), trained)
        return history.table()

    return make


def logged(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv")


def test_callbacks_are_used_and_made_anew_for_each_phase(train):
    seen.clear()
    train(f"+trainer.callbacks=[{{_target_: {__name__}.Counting}}]")
    first, second = dict.fromkeys(instance for instance, _ in seen)
    assert seen == [(first, 0), (first, 1), (second, 0), (second, 1), (second, 2)]


@pytest.mark.parametrize(
    "word",
    [
        f"+trainer.callbacks.mine={{_target_: {__name__}.Counting}}",
        f"+trainer.callbacks={{_target_: {__name__}.Counting}}",
        f"+trainer.callbacks={{mine: {{_target_: {__name__}.Counting}}, other: null}}",
    ],
)
def test_one_callback_and_callbacks_by_name_are_a_list_too(train, word):
    seen.clear()
    train(word, phases=PHASES[:1])
    assert [epoch for _, epoch in seen] == [0, 1]


def test_steps_and_epochs_of_a_logger_run_on_over_the_phases(train, tmp_path):
    history = train("+trainer.logger=true", f"+trainer.callbacks=[{LR_MONITOR}]", "+trainer.log_every_n_steps=1")
    table = logged(tmp_path / "run" / "lightning_logs" / "version_0")
    losses = table.dropna(subset="val/loss")
    assert losses["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert losses["val/loss"].tolist() == pytest.approx(history["val/loss"].tolist())
    rates = table.dropna(subset="lr-Adam").drop_duplicates("step")
    assert rates["step"].tolist() == list(range(5 * STEPS))
    assert rates["lr-Adam"].tolist() == [1e-2] * 2 * STEPS + [1e-3] * 3 * STEPS


def test_the_logger_of_a_run_that_is_resumed_goes_on_too(train, tmp_path, make_network):
    network = make_network()
    train("+trainer.logger=true", phases=PHASES[:1], network=network)
    shorter = Phase("all", "all", 1, 1e-3)
    train(phases=(PHASES[0], shorter), trained=trained_so_far(tmp_path / "run"), network=network)  # without a logger
    train("+trainer.logger=true", trained=trained_so_far(tmp_path / "run"), network=network)
    losses = logged(tmp_path / "run" / "lightning_logs" / "version_1").dropna(subset="val/loss")
    assert losses["epoch"].tolist() == [3, 4]
    assert losses["step"].tolist() == [4 * STEPS - 1, 5 * STEPS - 1]


def test_a_callback_of_lightning_that_saves_writes_into_the_runs_folder(train, tmp_path):
    train("+trainer.callbacks.each={_target_: lightning.pytorch.callbacks.ModelCheckpoint, save_top_k: -1}")
    names = {path.name for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt")}
    assert names == {"epoch=0-step=3.ckpt", "epoch=0-step=3-v1.ckpt", "epoch=1-step=6.ckpt", "epoch=1-step=6-v1.ckpt",
                     "epoch=2-step=9.ckpt"}  # fmt: skip
    assert [progress.name for progress in trained_so_far(tmp_path / "run")] == ["head", "all"]


def test_a_phase_that_a_callback_stops_in_its_first_epoch_is_validated_and_kept(train):
    history = train(f"+trainer.callbacks=[{{_target_: {__name__}.Stopping}}]")
    assert history["phase"].tolist() == ["head", "all"]
    assert not history[["train/loss", "val/loss"]].isna().any(axis=None)


def test_a_phase_without_an_epoch_is_one_line(train):
    timer = "{_target_: lightning.pytorch.callbacks.Timer, duration: {seconds: 0}}"
    with pytest.raises(CxrnetError, match=r"^trainer.callbacks: training was stopped before its first epoch"):
        train(f"+trainer.callbacks=[{timer}]")


@pytest.mark.parametrize("words", [("+trainer.logger=false", "+trainer.callbacks=null"), ("+trainer.logger=null",)])
def test_none_at_all(train, tmp_path, words):
    train(*words, phases=PHASES[:1])
    assert not (tmp_path / "run" / "lightning_logs").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+trainer.callbacks=3", "trainer.callbacks: 3 is no callback; give {_target_: lightning.pytorch.callbacks.<C"),
        ("+trainer.callbacks=[lr]", "trainer.callbacks: lr is no callback"),
        ("+trainer.callbacks=[{_target_: builtins.dict}]", "is no callback"),
        ("+trainer.logger=csv", "trainer.logger: csv is no logger; give {_target_: lightning.pytorch.loggers.<Class>}"),
        ("+trainer.callbacks.a={_target_: lightning.pytorch.callbacks.Typo}", "callbacks.Typo can't be made: .*'Typo'"),
        ("+trainer.logger={_target_: lightning.pytorch.loggers.CSVLogger}", "CSVLogger can't be made: .*save_dir"),
        (f"+trainer.callbacks=[{LR_MONITOR}]", r"LearningRateMonitor needs a logger; give \+trainer.logger=true"),
        ("+trainer.callbacks=[{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss}]", "no EarlySt"),
        ("+trainer.callbacks=[{_target_: lightning.pytorch.callbacks.BackboneFinetuning}]", "no BackboneFinetuning: "),
        ("+trainer.callbacks=[{_target_: lightning.pytorch.callbacks.EMAWeightAveraging}]", "no EMAWeightAveraging: "),
        ("+trainer.callbacks=[{_target_: lightning.pytorch.callbacks.TQDMProgressBar}]", "the console is cxrnet's own"),
        (
            "+trainer.callbacks={a: ${.b}, b: {_target_: lightning.pytorch.callbacks.ModelCheckpoint}}",
            "^trainer: Found more than one stateful callback of type `ModelCheckpoint`; leave one out$",
        ),
        ("+trainer.gradient_clip_algorithm=foo", "trainer: .*foo"),
        ("+trainer.profiler=foo", "trainer: .*`profiler`.*'simple'"),
    ],
)
def test_a_mistake_is_one_line_before_images_are_read(config, tmp_path, word, message):
    plain = config(word)
    with pytest.raises(CxrnetError, match=message) as caught:
        check_trainer(plain["trainer"], plain["optimizer"], tmp_path)
    assert "\n" not in str(caught.value)


def test_what_lightning_refuses_when_training_begins_is_one_line(train):
    keeper = "{_target_: lightning.pytorch.callbacks.ModelCheckpoint, monitor: nothing}"
    with pytest.raises(
        CxrnetError, match=r"^trainer: .*monitor='nothing'.*; mend or leave out what was added"
    ) as caught:
        train(f"+trainer.callbacks=[{keeper}]", phases=PHASES[:1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ("+trainer.gradient_clip_val=0.1", "+trainer.gradient_clip_algorithm=value", "optimizer.fused=false"),
        ("+trainer.log_every_n_steps=0", "+trainer.logger=true", "+trainer.deterministic=warn"),
        ("+trainer.deterministic=true", "+trainer.detect_anomaly=true", "+trainer.inference_mode=false"),
        ("+trainer.profiler=simple", "+trainer.enable_autolog_hparams=false", "+trainer.accumulate_grad_batches=2"),
        ("+trainer.benchmark=false", "+trainer.strategy=auto", "trainer.precision=bf16-mixed", "optimizer.fused=false"),
    ],
)
def test_every_argument_that_is_used_trains_on_features_and_on_images(train, words):
    phases = [dataclasses.replace(phase, epochs=1) for phase in PHASES]
    assert train(*words, phases=phases)["phase"].tolist() == ["head", "all"]


def test_what_changes_the_steps_changes_the_result(train):
    losses = {
        word: train(*word.split(), phases=PHASES[:1])["val/loss"].tolist()
        for word in (
            "",
            "+trainer.accumulate_grad_batches=2",
            "+trainer.gradient_clip_val=0.001",
            "+trainer.logger=true",
        )
    }
    plain, accumulated, clipped, logged_too = losses.values()
    assert plain == logged_too
    assert plain != accumulated != clipped
