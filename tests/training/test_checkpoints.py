import dataclasses
import io
import math
import pickle
import re
import zipfile
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from cxrnet.data.augment import geometric
from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import frozen_names, set_trainable
from cxrnet.training import callbacks
from cxrnet.training.additions import MovingAverage
from cxrnet.training.checkpoints import (
    History,
    PlainFiles,
    checkpoint,
    complete_kept,
    load_kept,
    metrics_of,
    read_progress,
    trained_so_far,
)
from cxrnet.training.phases import run_phases
from cxrnet.training.schedule import Phase, Schedule

PLATEAU = {"name": "plateau", "factor": 0.5, "patience": 1}
COSINE = {"name": "cosine", "warmup_epochs": 1}
AUGMENT = geometric(flip=0, degrees=10, translate=0.1, shear=0, zoom=0.1, distortion=0)
HEAD = Phase("head", "head", epochs=3, lr=3e-2, lr_schedule=PLATEAU)
TUNE = Phase("finetune", {"from": "block3"}, epochs=4, lr=1e-2, patience=3, lr_schedule=COSINE)
VECTORS = 2e-4  # gigabytes: room for the features of the whole backbone, but not for maps

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

UPHILL = partial(torch.optim.Adam, maximize=True)  # each epoch is worse than the one before it


class PowerCutError(Exception):
    pass


class PowerCut(Callback):
    """Ends everything at a hook of an epoch, or of a batch in it, both counted from 0 in its phase."""

    def __init__(self, hook: str, epoch: int, batch: int | None = None):
        def cut(trainer, *_):
            if trainer.current_epoch == epoch and batch in (None, trainer.fit_loop.batch_idx):
                raise PowerCutError

        setattr(self, hook, cut)


@pytest.fixture
def train(make_network, make_data, make_training, tmp_path):
    """Trains in a folder of its own, or goes on there; gives results, rows, weights and the epochs handed on."""

    def make(place="run", phases=(HEAD, TUNE), cut=None, monitor="val/loss", views=2, resume=False, **changes):
        network, folder, told = make_network(dropout=0.5), tmp_path / place, []
        room, every = changes.pop("features_gb", VECTORS), changes.pop("every", None)
        schedule = Schedule(phases, HEAD, monitor, views, room, best_from=0, checkpoint_every=every)
        data = make_data(augment=AUGMENT, **changes.pop("data", {}))
        training = make_training(
            schedule,
            folder,
            callbacks=lambda phase: [*cut[1:]] if cut and phase.name == cut[0] else [],
            log_metrics=lambda metrics, epoch: told.append(epoch),
            **changes,
        )
        trained = trained_so_far(folder) if resume else ()
        results, history = run_phases(network, data, training, trained)
        return results, history.rows, network.state_dict(), told

    return make


@pytest.fixture(scope="module")
def kept():
    """For what several tests compare with."""
    return {}


@pytest.fixture
def whole_of(train, kept):
    """Trains without an interruption, once for all that compare with it."""

    def call(**changes):
        if (key := repr(changes)) not in kept:
            kept[key] = train("whole", **changes)
        return kept[key]

    return call


@pytest.fixture
def whole(whole_of):
    """A run that was not interrupted."""
    return whole_of()


def facts(results):
    return [{**vars(result), "seconds": 0} for result in results]


def assert_same(run, other):
    assert run[1] == other[1]
    assert facts(run[0]) == facts(other[0])
    assert all(torch.equal(run[2][name], other[2][name]) for name in run[2])


CUTS = [
    ("head", "on_train_batch_start", 0, []),  # before the first epoch has ended
    ("head", "on_validation_start", 2, [1, 2]),
    ("head", "on_train_end", 3, [1, 2, 3]),  # all is trained, but the best weights lack the frozen ones
    ("finetune", "on_train_batch_start", 0, [1, 2, 3]),
    ("finetune", "on_train_batch_end", 2, [1, 2, 3, 4, 5]),
    ("finetune", "on_train_epoch_end", 2, [1, 2, 3, 4, 5]),  # before the epoch was saved
    ("finetune", "on_train_end", 4, [1, 2, 3, 4, 5, 6, 7]),  # all is trained, but not evaluated
]


@pytest.mark.parametrize(("phase", "hook", "epoch", "before"), CUTS)
def test_a_run_that_was_interrupted_ends_like_one_that_was_not(train, whole, tmp_path, phase, hook, epoch, before):
    with pytest.raises(PowerCutError):
        train(cut=(phase, PowerCut(hook, epoch)))
    trained = trained_so_far(tmp_path / "run")
    assert [row["epoch"] for row in (trained[-1].rows if trained else [])] == before
    resumed = train(resume=True)
    assert_same(resumed, whole)
    assert resumed[3] == whole[3][len(before) :]  # no epoch is handed on twice
    assert len(whole[3]) == 7


class Count(Callback):
    """Counts the batches that are trained on."""

    def __init__(self):
        self.batches = 0

    def on_train_batch_start(self, *args):
        self.batches += 1


MANY = {"data": {"batch_size": 2}, "every": 2}  # nine batches an epoch
WITHIN = [
    ("head", 0, 4, {}),  # of the first epoch, before there is last.ckpt
    ("head", 2, 5, {}),  # after the plateau has counted
    ("finetune", 0, 3, {}),  # of a later phase
    ("finetune", 2, 8, {"views": 0}),  # on augmented images
    pytest.param(  # which have loaded ahead
        *("finetune", 1, 7, {"data": {"batch_size": 2, "num_workers": 2}, "views": 0}), marks=pytest.mark.slow
    ),
    ("head", 1, 5, {"data": {"batch_size": 2, "sampler": "balanced"}}),
]


@pytest.mark.parametrize(("phase", "epoch", "batch", "changes"), WITHIN)
def test_an_epoch_goes_on_in_its_middle(train, whole_of, tmp_path, phase, epoch, batch, changes):
    changes = {**MANY, **changes}
    whole = whole_of(**{**changes, "every": None})
    with pytest.raises(PowerCutError):
        train(cut=(phase, PowerCut("on_train_batch_start", epoch, batch)), **changes)
    assert trained_so_far(tmp_path / "run")[-1].batches == batch // 2 * 2  # batch is counted from 0
    count = Count()
    resumed = train(resume=True, cut=(phase, count), **changes)
    assert_same(resumed, whole)
    epochs = {"head": 3, "finetune": 4}[phase]
    assert count.batches == 9 * (epochs - epoch) - batch // 2 * 2  # what was saved is not trained again
    assert not list((tmp_path / "run").rglob("running.ckpt"))


def test_an_epoch_goes_on_in_its_middle_with_averaged_weights_and_accumulated_gradients(train, tmp_path):
    """A checkpoint waits for the optimizer: gradients that are summed up are in none."""
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, accumulate_grad_batches=3)
    changes = {**MANY, "every": 4, "trainer": trainer, "phases": (HEAD,)}
    whole = train("whole", cut=("head", MovingAverage(0.9)), **changes)
    with pytest.raises(PowerCutError):
        train(cut=("head", MovingAverage(0.9), PowerCut("on_train_batch_start", 1, 8)), **changes)
    assert trained_so_far(tmp_path / "run")[-1].batches == 6
    assert_same(train(resume=True, cut=("head", MovingAverage(0.9)), **changes), whole)


def test_batches_that_other_processes_shared_are_trained_again(train, whole_of, tmp_path, caplog):
    whole = whole_of(**{**MANY, "every": None})
    with pytest.raises(PowerCutError):
        train(cut=("head", PowerCut("on_train_batch_start", 1, 5)), **MANY)
    file = checkpoint(tmp_path / "run", "head", "running")
    content = torch.load(file, weights_only=True)
    content["callbacks"]["EpochKeeper"]["processes"] = 2  # stands for a run on two devices
    torch.save(content, file)
    assert_same(train(resume=True, **MANY), whole)
    assert "2 processes shared the batches of the epoch that was stopped and 1 do now" in caplog.text


def test_it_may_be_interrupted_again_and_again(train):
    whole = train("whole", views=0)
    for resume, phase, epoch in ((False, "head", 1), (True, "head", 2), (True, "finetune", 1), (True, "finetune", 3)):
        with pytest.raises(PowerCutError):
            train(cut=(phase, PowerCut("on_train_batch_start", epoch)), resume=resume, views=0)
    assert_same(train(resume=True, views=0), whole)


@pytest.mark.parametrize(
    ("epochs", "more", "began", "now"),
    [
        (2, 5, 1, 1),  # no more epochs than views, and then more
        (3, 5, 0, 1),  # more room now
        (3, 5, 1, 0),  # less room now
    ],
)
def test_a_phase_goes_on_with_a_table_or_without_as_it_began(train, epochs, more, began, now):
    short = Phase("part", {"from": "block3"}, epochs=epochs, lr=1e-2)
    long = dataclasses.replace(short, epochs=more)
    first = train(phases=(short,), features_gb=began)
    resumed = train(phases=(long,), features_gb=now, resume=True)
    stored = epochs > 2 and began > 0
    assert first[0][0].cached is stored
    assert_same(resumed, train("whole", phases=(long,), features_gb=int(stored)))


def test_early_stopping_goes_on_counting(train):
    stops = {"phases": (Phase("all", "all", epochs=30, lr=1e-3, patience=4),), "optimizer": UPHILL}
    whole = train("whole", **stops)
    assert [result.epochs for result in whole[0]] == [5]
    for hook, epoch in (("on_train_batch_start", 3), ("on_train_end", 5)):  # of a phase that is stopped nothing is left
        with pytest.raises(PowerCutError):
            train(hook, **stops, cut=("all", PowerCut(hook, epoch)))
        assert_same(train(hook, **stops, resume=True), whole)


def test_a_plateau_goes_on_counting(train):
    # The loss grows, so the rate is halved soon.
    phase = Phase("head", "head", epochs=6, lr=1e-2, lr_schedule={**PLATEAU, "patience": 0})
    flat = {"phases": (phase,), "optimizer": UPHILL}
    whole = train("whole", **flat)
    halved = [row["train/lr"] for row in whole[1]].index(5e-3)
    with pytest.raises(PowerCutError):
        train(cut=("head", PowerCut("on_train_batch_start", halved)), **flat)
    assert_same(train(resume=True, **flat), whole)


@pytest.mark.parametrize("plan", [PLATEAU, COSINE])
def test_more_epochs_are_trained_as_if_they_had_been_planned(train, plan):
    short = Phase("all", "all", epochs=2, lr=1e-2, lr_schedule=plan)
    long = Phase("all", "all", epochs=5, lr=1e-2, lr_schedule=plan)
    train(phases=(short,))
    _, rows, _, told = train(phases=(long,), resume=True)
    assert told == [3, 4, 5]
    planned = train("long", phases=(long,))[1]
    if plan is PLATEAU:
        assert rows == planned
    assert [row["train/lr"] for row in rows[2:]] == [row["train/lr"] for row in planned[2:]]


def test_a_single_epoch_has_no_warm_up_and_more_have(train):
    train(phases=(Phase("all", "all", epochs=1, lr=1e-2, lr_schedule={**COSINE, "warmup_epochs": 0}),))
    long = Phase("all", "all", epochs=3, lr=1e-2, lr_schedule=COSINE)
    rows = train(phases=(long,), resume=True)[1]
    assert [row["train/lr"] for row in rows[1:]] == [row["train/lr"] for row in train("long", phases=(long,))[1][1:]]


def test_a_later_phase_can_be_added_to_a_finished_run(train, whole):
    train(phases=(HEAD,))
    assert_same(train(resume=True), whole)


def test_what_is_finished_is_not_trained_again_and_nothing_it_is_built_on(train):
    first = train()
    again = train(phases=(dataclasses.replace(HEAD, epochs=9), TUNE), resume=True)
    assert_same(again, first)
    assert again[3] == []
    assert [result.epochs for result in again[0]] == [3, 4]
    for once, twice in zip(first[0], again[0], strict=True):
        assert 0 < twice.seconds <= once.seconds


def test_the_best_weights_survive_a_folder_that_moves(train, tmp_path):
    worst = {
        "phases": (Phase("all", "all", epochs=3, lr=1e-3),),
        "optimizer": UPHILL,
    }  # the first epoch has the lowest loss
    with pytest.raises(PowerCutError):
        train(cut=("all", PowerCut("on_train_batch_start", 1)), **worst)
    first = torch.load(checkpoint(tmp_path / "run", "all", "kept"), weights_only=True)["state_dict"]
    (tmp_path / "run").rename(tmp_path / "moved")
    results, _, weights, _ = train("moved", resume=True, **worst)
    assert results[0].kept_epoch == 1
    assert all(torch.equal(first[f"network.{name}"], weights[name]) for name in weights)


def test_the_best_checkpoint_is_made_up_for(train, whole, tmp_path, monkeypatch):
    def cut(*_):
        raise PowerCutError

    monkeypatch.setattr(callbacks, "keep_epoch", cut)  # last.ckpt has been written, kept.ckpt not yet
    with pytest.raises(PowerCutError):
        train()
    monkeypatch.undo()
    assert not checkpoint(tmp_path / "run", "head", "kept").exists()
    assert_same(train(resume=True), whole)


def test_a_metric_of_training_can_be_monitored(train, tmp_path):
    stops = Phase("all", "all", epochs=6, lr=1.0, patience=2)
    results, rows, _, _ = train(phases=(stops,), monitor="train/loss")
    losses = [row["train/loss"] for row in rows]
    assert results[0].kept_score == min(losses)
    assert len(losses) == min(6, results[0].kept_epoch + 2)
    progress = read_progress(checkpoint(tmp_path / "run", "all", "kept"))
    assert len(progress.rows) == results[0].kept_epoch


def test_another_seed_draws_other_numbers(train):
    assert train("a")[1] != train("b", seed=1)[1]


def test_an_epoch_is_not_drawn_like_the_one_before(train):
    still = Phase("all", "all", epochs=2, lr=1e-30)
    first, second = train(phases=(still,))[1]
    assert first["train/loss"] != second["train/loss"]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ((TUNE,), "resume: the run was trained in the phases head, and now they would be finetune; give the schedule"),
        (
            (Phase("head", "head", 3, 1e-3, lr_schedule=PLATEAU), TUNE),
            "resume: phase 'head' was trained with lr 0.03, which is 0.001 now; take it back",
        ),
        (
            (Phase("head", "head", 3, 3e-2), TUNE),
            "resume: phase 'head' was trained with lr_schedule {'name': 'plateau'",
        ),
        ((Phase("head", "all", 3, 3e-2, lr_schedule=PLATEAU),), "was trained with trainable head, which is all now"),
    ],
)
def test_what_was_trained_must_be_what_the_schedule_begins_with(train, phases, message):
    train(phases=(HEAD,))
    with pytest.raises(CxrnetError, match=re.escape(message)):
        train(phases=phases, resume=True)


# --- the history


@pytest.mark.parametrize(
    ("scores", "monitor", "epoch"),
    [
        ([3.0, 1.0, 2.0], "val/loss", 2),
        ([3.0, 1.0, 4.0], "val/roc_auc_macro", 3),
        ([2.0, 1.0, 1.0], "val/loss", 2),  # the earlier one of two equals
        ([math.nan, 3.0, 2.0], "val/loss", 3),
        ([2.0, math.nan, 3.0], "val/roc_auc_macro", 3),
        ([math.inf, math.nan, 5.0], "val/loss", 3),
    ],
)
def test_the_best_epoch_of_a_phase_is_kept_or_the_last(scores, monitor, epoch):
    history, schedule = History([{"phase": "before", "epoch": 1, monitor: 0.0}]), Schedule((), None, monitor, 1, 1, 0)
    for score in scores:
        history.add("head", {monitor: score})
    assert history.kept("head", schedule, last=False)["epoch"] == epoch + 1  # epochs run on over the phases
    assert history.kept("head", schedule, last=True)["epoch"] == len(scores) + 1
    assert metrics_of(history.rows[-1]) == {monitor: scores[-1]}


# --- the files


@pytest.fixture
def trained(make_network, tmp_path):
    """A network and the best checkpoint of its head, which lacks the backbone."""
    network = make_network()
    set_trainable(network, "head")
    with torch.no_grad():
        network.head[1].weight.fill_(7.0)
    frozen = frozen_names(network)
    state = {f"network.{name}": value for name, value in network.state_dict().items() if name not in frozen}
    file = checkpoint(tmp_path, "head", "kept")
    PlainFiles().save_checkpoint({"state_dict": {**state, "loss.weight": torch.ones(3)}, "epoch": 4}, file)
    return network, file


def test_what_a_checkpoint_lacks_stays_as_it_is(trained, make_network, tmp_path):
    other = make_network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(0.5)
    load_kept(other, tmp_path, "head")
    assert (other.head[1].weight == 7.0).all()
    assert (other.backbone.block1[0].weight == 0.5).all()


def test_a_completed_checkpoint_is_the_whole_network(trained, make_network, tmp_path):
    network, file = trained
    complete_kept(network, tmp_path, "head")
    content = torch.load(file, weights_only=True)
    assert content["epoch"] == 4
    assert set(content["state_dict"]) == {f"network.{name}" for name in network.state_dict()} | {"loss.weight"}
    other = make_network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(0.5)
    load_kept(other, tmp_path, "head")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in other.state_dict().items())
    assert [path.name for path in file.parent.iterdir()] == ["kept.ckpt"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(trained):
    _, file = trained
    with pytest.raises(AttributeError, match="pickle"):
        PlainFiles().save_checkpoint({"epoch": 5, "a lambda": lambda: None}, file)
    assert torch.load(file, weights_only=True)["epoch"] == 4
    assert [path.name for path in file.parent.iterdir()] == ["kept.ckpt"]


class Loud:
    def __reduce__(self):
        return print, ("unpickled",)


def _zipped(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
    return file.getvalue()


def _saved(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is missing"),
        (b"", "can't be read"),
        (b"abc", "(can't be read|holds something else than plain values)"),
        (pickle.dumps(Loud()), "(can't be read|holds something else than plain values)"),
        (_zipped("archive/data.pkl", pickle.dumps(Loud())), "(can't be read|holds something else than plain values)"),
        (_zipped("loud.pkl", pickle.dumps(Loud())), "can't be read"),
        (_saved(Loud()), "holds something else than plain values"),
        (_saved([1]), "is no checkpoint of a run"),
        (_saved({"state_dict": {"network.head.1.weight": torch.ones(9)}}), "is of another network"),
        (_saved({"state_dict": {}})[:-40], "can't be read"),
    ],
)
def test_what_is_no_checkpoint_is_refused_and_runs_no_code(trained, tmp_path, capsys, content, reason):
    network, file = trained
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(CxrnetError, match=rf"^resume: '.*kept.ckpt' {reason}.*; (bring .* or )?start a new run$"):
        load_kept(network, tmp_path, "head")
    assert capsys.readouterr().out == ""
