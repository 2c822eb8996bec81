import dataclasses
import gc
import shutil
import weakref
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from cxrnet.data.augment import geometric
from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.layers import stages
from cxrnet.models.lightning_module import Classifier
from cxrnet.training.features import FeatureDataModule
from cxrnet.training.phases import run_phases
from cxrnet.training.schedule import Phase, Schedule, enabled_phases

HEAD = Phase("head", "head", epochs=3, lr=1e-2)
TUNE = Phase("finetune", {"from": "block3"}, epochs=2, lr=1e-3)
SCRATCH = Phase("scratch", "all", epochs=2, lr=1e-2)
COSINE = {"name": "cosine", "warmup_epochs": 2}
AUGMENT = geometric(flip=0, degrees=10, translate=0.1, shear=0, zoom=0.1, distortion=0)
UPHILL = partial(torch.optim.Adam, maximize=True)  # each epoch is worse than the one before it
CPU = partial(pl.Trainer, accelerator="cpu", devices=1)
VECTORS = 2e-4  # gigabytes: room for the features of the whole backbone, but not for maps

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def schedule(*phases: Phase, views: int = 1, monitor: str = "val/loss", **more) -> Schedule:
    return Schedule(phases, SCRATCH, monitor, views, **{"features_gb": VECTORS, "best_from": 0, **more})


class Spy(Callback):
    """Writes down what the network looks like in each batch."""

    def __init__(self):
        self.modes, self.start = [], None

    def on_train_start(self, trainer, pl_module):
        self.start = {name: value.clone() for name, value in pl_module.network.state_dict().items()}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        network = pl_module.network
        training = {name for name, stage in stages(network.backbone).items() if stage.training}
        self.modes.append((network.head.training, training))


@pytest.fixture
def run(make_network, make_data, make_training, tmp_path):
    """Runs a schedule's phases; gives the results, the history, the network and a spy for each phase."""

    def make(
        plan: Schedule,
        network=None,
        data=None,
        **more,
    ):
        network = network or make_network()
        spies: dict[str, Spy] = {}

        def callbacks(phase):
            spies[phase.name] = Spy()
            return [spies[phase.name]]

        training = make_training(plan, tmp_path / "run", callbacks=callbacks, **more)
        results, history = run_phases(network, data or make_data(), training)
        return results, history, network, spies

    return make


def val_loss(network, data) -> float:
    images, labels = data.arrays("val")
    with torch.inference_mode():
        return nn.functional.cross_entropy(network.eval()(torch.from_numpy(images[:]).unsqueeze(1)), labels).item()


def saved(folder, phase: str, name: str = "kept") -> dict[str, torch.Tensor]:
    state = torch.load(folder / "run" / "checkpoints" / phase / f"{name}.ckpt", weights_only=True)["state_dict"]
    return {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}


def equal(a, b) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


# --- weight decay


def norm(network) -> float:
    return sum(float(weights.norm()) for weights in network.head.parameters())


@pytest.mark.parametrize("lr_schedule", [None, {"name": "cosine", "warmup_epochs": 1}])
def test_decay_is_that_of_adamw_shared_out_over_the_steps_of_the_phase(run, make_data, make_network, lr_schedule):
    steps = 3 * len(make_data().train_dataloader())
    plain = Phase("head", "head", 3, 1e-2, lr_schedule=lr_schedule)
    of_adamw = partial(torch.optim.AdamW, weight_decay=2.0 / (1e-2 * steps))
    _, _, expected, _ = run(schedule(plain), optimizer=of_adamw)
    _, _, network, _ = run(schedule(dataclasses.replace(plain, decay=2.0)))
    _, _, without, _ = run(schedule(plain))
    for name, value in network.head.state_dict().items():
        torch.testing.assert_close(value, expected.head.state_dict()[name])
    assert norm(network) < norm(without)


# --- which phases run


def test_a_phase_that_is_not_enabled_is_left_out():
    off = Phase("finetune", "all", 2, 1e-3, enabled=None)
    assert enabled_phases(schedule(HEAD, off), pretrained=True) == (HEAD,)
    assert enabled_phases(schedule(HEAD, TUNE), pretrained=True) == (HEAD, TUNE)


def test_random_weights_are_never_frozen():
    phases = enabled_phases(schedule(HEAD, TUNE), pretrained=False)
    assert [(phase.name, phase.trainable, phase.epochs) for phase in phases] == [
        ("scratch", "all", 2),
        ("finetune", "all", 2),
    ]


def test_a_cap_shortens_phases_and_their_warm_up():
    long = Phase("head", "head", 60, 1e-3, lr_schedule=COSINE)
    (capped,) = enabled_phases(schedule(long, max_epochs=1), pretrained=True)
    assert (capped.epochs, capped.lr_schedule) == (1, {"name": "cosine", "warmup_epochs": 0})
    assert enabled_phases(schedule(HEAD, max_epochs=50), pretrained=True) == (HEAD,)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ((Phase("finetune", "all", 2, 1e-3, enabled=False),), "no phase is enabled"),
        ((HEAD, HEAD), "two phases have one name"),
    ],
)
def test_phases_that_are_none(phases, message):
    with pytest.raises(CxrnetError, match=rf"^schedule.phases: {message}"):
        enabled_phases(schedule(*phases), pretrained=True)


# --- what training does


@pytest.mark.parametrize("gigabytes", [0, 1])
def test_training_happens_in_training_mode_and_frozen_batch_norm_does_not(run, gigabytes):
    *_, spies = run(schedule(HEAD, TUNE, Phase("all", "all", 1, 1e-3), features_gb=gigabytes))
    assert spies["head"].modes == [(True, set())] * 9
    assert spies["finetune"].modes == [(True, {"block3"})] * 6
    assert spies["all"].modes == [(True, {"block1", "block2", "block3"})] * 3


@pytest.mark.parametrize("gigabytes", [0, 1])
def test_frozen_layers_are_bitwise_what_they_were(run, make_network, tmp_path, gigabytes):
    before = make_network().state_dict()
    run(schedule(HEAD, TUNE, features_gb=gigabytes), make_network())
    after_head, after_tune = saved(tmp_path, "head"), saved(tmp_path, "finetune")
    frozen = [name for name in before if name.startswith("backbone")]
    assert all(torch.equal(before[name], after_head[name]) for name in frozen)
    assert all(torch.equal(before[name], after_tune[name]) for name in frozen if "block3" not in name)
    assert not torch.equal(before["backbone.block3.1.running_mean"], after_tune["backbone.block3.1.running_mean"])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_features_of_the_backbone_train_as_the_long_way_does(run, make_network, dropout):
    head = Phase("head", "head", epochs=3, lr=1e-2)
    tables, cached = [], []
    for way in ({"views": 0}, {"views": 1}, {"views": 1, "features_gb": 0}):
        network = make_network(backbone="mobilenet_v2", hidden=(16,), dropout=dropout)
        results, history, _, _ = run(schedule(head, **way), network)
        cached.append(results[0].cached)
        tables.append(history.table()[["train/loss", "val/loss", "train/accuracy", "val/roc_auc_macro"]])
    assert cached == [False, True, False]
    assert all((table - tables[0]).abs().to_numpy().max() < 1e-5 for table in tables[1:])


@pytest.mark.parametrize(
    ("backbone", "trainable", "augment"),
    [
        ("custom_cnn", {"from": "block3"}, None),
        ("custom_cnn", {"last": 3}, None),
        ("mobilenet_v2", {"last": 30}, None),
        ("mobilenet_v2", {"last": 30}, AUGMENT),
    ],
)
def test_a_partly_frozen_backbone_trains_as_the_long_way_does(
    run, make_network, make_data, backbone, trainable, augment
):
    # Rounding is amplified: Adam moves a weight by the rate, one way or the other, however small its gradient is. Two
    # unfused trunks whose batches have other sizes differ as much, so the rate is small.
    part = Phase("part", trainable, epochs=2 if augment else 3, lr=1e-5)
    ways = [{"views": 0}, {"features_gb": 0}, *([] if augment else [{"features_gb": 1}])]
    settings = {"augment": augment, "size": (64, 64), "batch_size": 9}
    tables, cached = [], []
    for way in ways:
        network, data = make_network(backbone=backbone, dropout=0.5, size=(64, 64)), make_data(**settings)
        results, history, _, _ = run(schedule(part, **way), network, data)
        tables.append(history.table()[["train/loss", "val/loss"]])
        cached.append(results[0].cached)
    assert cached == [False, False, True][: len(ways)]
    assert all((table - tables[0]).abs().to_numpy().max() < 1e-4 for table in tables[1:])
    assert tables[0]["train/loss"].nunique() == part.epochs


@pytest.mark.parametrize("settings", [{"views": 0}, {}, {"features_gb": 1}])
def test_checkpoints_hold_what_is_trained_and_the_best_one_in_the_end_everything(run, make_network, tmp_path, settings):
    names = set(make_network().state_dict())
    run(schedule(HEAD, TUNE, **settings))
    head = {name for name in names if name.startswith("head")}
    assert set(saved(tmp_path, "head", "last")) == head
    assert set(saved(tmp_path, "finetune", "last")) == head | {name for name in names if "block3" in name}
    assert set(saved(tmp_path, "head")) == set(saved(tmp_path, "finetune")) == names


def test_epochs_run_on_and_every_one_is_handed_on_once(run):
    logged = []
    results, history, _, _ = run(
        schedule(HEAD, TUNE), log_metrics=lambda metrics, epoch: logged.append((epoch, metrics))
    )
    assert [epoch for epoch, _ in logged] == [1, 2, 3, 4, 5]
    assert history.table()["phase"].tolist() == ["head"] * 3 + ["finetune"] * 2
    assert [(r.first_epoch, r.epochs) for r in results] == [(1, 3), (4, 2)]
    assert {"train/loss", "train/roc_auc_macro", "train/lr", "val/loss", "val/sensitivity/Covid"} <= set(logged[0][1])
    assert history.table()["train/lr"].tolist() == pytest.approx([1e-2] * 3 + [1e-3] * 2)
    assert not history.table().isna().any().any()


def test_a_phase_starts_from_the_best_weights_before_it(run, tmp_path):
    results, _, _, spies = run(schedule(Phase("head", "head", 6, 1e-2), TUNE), optimizer=UPHILL)
    assert results[0].kept_epoch == 1
    assert equal(spies["finetune"].start, saved(tmp_path, "head"))
    assert not equal(saved(tmp_path, "head", "last"), spies["finetune"].start)


def test_a_phase_does_not_start_from_a_worse_one(run, tmp_path):
    ruin = Phase("ruin", "all", 1, 50.0)
    results, _, _, spies = run(schedule(HEAD, ruin, TUNE))
    assert results[1].kept_score > results[0].kept_score
    assert equal(spies["finetune"].start, saved(tmp_path, "head"))


@pytest.mark.parametrize("lr", [50.0, 1e30])
def test_a_fine_tuning_that_makes_things_worse_is_not_kept(run, make_data, tmp_path, lr):
    # With 1e30 the loss is no number any more.
    data = make_data()
    results, history, network, _ = run(
        schedule(HEAD, Phase("finetune", "all", 1, lr)), data=data, optimizer=torch.optim.SGD
    )
    assert [result.kept for result in results] == [True, False]
    assert history.rows[results[0].kept_epoch - 1]["val/loss"] == results[0].kept_score
    assert equal(network.state_dict(), saved(tmp_path, "head"))
    assert val_loss(network, data) == pytest.approx(results[0].kept_score, abs=1e-5)


@pytest.mark.parametrize(
    ("phase", "best_from", "keep"),
    [(Phase("head", "head", 6, 1e-2, keep="last"), 0, "last"), (Phase("head", "head", 6, 1e-2), 1000, "last")],
)
def test_the_last_epoch_is_kept(run, tmp_path, phase, best_from, keep):
    results, history, _, spies = run(schedule(phase, TUNE, best_from=best_from), optimizer=UPHILL)
    assert (results[0].keep, results[0].kept_epoch) == (keep, 6)
    assert results[0].kept_score == history.rows[5]["val/loss"] > history.table()["val/loss"][:6].min()
    assert equal(spies["finetune"].start, saved(tmp_path, "head"))
    assert equal(
        {name: spies["finetune"].start[name] for name in saved(tmp_path, "head", "last")},
        saved(tmp_path, "head", "last"),
    )


@pytest.mark.parametrize("monitor", ["val/roc_auc_macro", "val/accuracy"])
def test_a_metric_to_be_maximised(run, monitor):
    # The loss grows, so that the last epoch is not the best one.
    results, history, _, _ = run(schedule(Phase("head", "head", 6, 1e-2), monitor=monitor), optimizer=UPHILL)
    scores = history.table()[monitor]
    assert results[0].kept_score == scores.max() > scores.min()


def test_it_learns(run, make_data):
    data = make_data()
    _, history, _, _ = run(schedule(Phase("scratch", "all", 12, 3e-3)), data=data)
    assert history.table()["val/accuracy"].max() > 0.85


# On images, on a table of features, and through the frozen trunk.
@pytest.mark.parametrize(("views", "gigabytes"), [(0, 0), (1, 1), (1, 0)])
def test_training_is_in_mixed_precision_and_validation_is_not(run, make_network, make_data, views, gigabytes):
    # With a rate of next to nothing, and batch norms that are frozen, the network stays what it was.
    plan = schedule(Phase("head", "head", 2, 1e-30), views=views, features_gb=gigabytes)
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        _, history, _, _ = run(plan, make_network(), make_data(), trainer=partial(CPU, precision=precision))
        losses[precision] = history.rows[-1]
    single, half = losses["32-true"], losses["bf16-mixed"]
    assert half["val/loss"] == pytest.approx(single["val/loss"], abs=1e-6)
    assert half["train/loss"] != pytest.approx(single["train/loss"], abs=1e-6)


@pytest.mark.parametrize("gigabytes", [0, 1])
def test_what_a_phase_needed_is_gone_before_the_next_one(make_network, make_data, make_training, tmp_path, gigabytes):
    held, alive, plan = {}, [], schedule(HEAD, TUNE, features_gb=gigabytes)
    network, data = make_network(), make_data()

    class Watch(Callback):
        def on_train_start(self, trainer, pl_module):
            alive.append([name for name, reference in held.items() if reference() is not None])

        def on_train_end(self, trainer, pl_module):
            held["trainer"] = weakref.ref(trainer)
            held["optimizer"] = weakref.ref(trainer.optimizers[0])
            held["data"] = weakref.ref(trainer.datamodule)
            if isinstance(trainer.datamodule, FeatureDataModule):
                held["table"] = weakref.ref(trainer.datamodule.tables["train"].table)

    gc.disable()  # so that it isn't by chance
    try:
        run_phases(network, data, make_training(plan, tmp_path, callbacks=lambda _phase: [Watch()]))
    finally:
        gc.enable()
    assert alive == [[], []]
    assert {name for name, reference in held.items() if reference() is not None} == set()
    assert ("table" in held) is (gigabytes > 0)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_facts_of_a_phase(run, make_network):
    network = make_network()
    results, _, _, _ = run(
        schedule(HEAD, Phase("finetune", {"last": 4}, 1, 1e-3), Phase("all", "all", 1, 1e-3)), network
    )
    assert [result.trainable for result in results] == ["head", "last 4 layers", "all"]
    head = 128 * 3 + 3
    assert results[0].trained_parameters == head
    assert results[1].trained_parameters == head + 64 * 128 * 9 + 2 * 128
    assert results[2].trained_parameters == sum(p.numel() for p in network.parameters())
    assert [result.cached for result in results] == [True, False, False]
    assert all(result.seconds > 0 for result in results)


# --- mistakes, told before anything is trained


LR_STEP = {"name": "step"}
MISTAKES = [
    ({"phases": [HEAD], "monitor": "val_acc"}, {}, "schedule.monitor: 'val_acc' is no logged metric; use one of val"),
    ({"phases": [HEAD, Phase("b", {"from": "layer3"}, 1, 1e-3)]}, {}, "no stage 'layer3' in this backbone"),
    ({"phases": [HEAD, Phase("b", "heads", 1, 1e-3)]}, {}, "phase: trainable: heads is not known"),
    ({"phases": [HEAD, Phase("b", "all", 1, -1.0)]}, {}, "phase 'b': no optimizer can be made: Invalid learning rate"),
    ({"phases": [HEAD, Phase("b", "all", 1, 1e-3, lr_schedule=LR_STEP)]}, {}, "phase: lr_schedule: {'name': 'step'}"),
    ({"phases": [HEAD]}, {"optimizer": partial(torch.optim.Adam, foo=1)}, "phase 'head': no optimizer .*'foo'"),
    *(
        ({"phases": [HEAD]}, {"trainer": partial(pl.Trainer, **{"accelerator": "cpu", "devices": 1, **changes})}, line)
        for line, several in {
            "^trainer: .*; use trainer=auto, cpu, gpu, ddp or fsdp": (
                *({"accelerator": "warp"}, {"accelerator": "tpu"}, {"foo": 1}, {"precision": "8"}, {"devices": 0}),
            ),
            "^trainer.precision: .*float32": ({"precision": "bf16-true"}, {"precision": 64}),
        }.items()
        for changes in several
    ),
]


@pytest.mark.parametrize(("plan", "changes", "message"), MISTAKES)
def test_a_mistake_is_told_in_one_line_before_the_first_phase_trains(run, tmp_path, plan, changes, message):
    with pytest.raises(CxrnetError, match=message) as caught:
        run(schedule(*plan["phases"], monitor=plan.get("monitor", "val/loss")), **changes)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(("keep", "which"), [("best", "any"), ("last", "its last")])
def test_training_that_diverges_from_the_start(run, keep, which):
    phase = Phase("head", "all", 1, 1e30, keep=keep)
    with pytest.raises(CxrnetError, match=f"phase 'head': val/loss is not a number in {which} epoch; lower its lr"):
        run(schedule(phase), optimizer=torch.optim.SGD)


def test_a_batch_norm_that_would_train_on_one_number_is_told_before_the_first_phase(
    run, make_network, make_data, tmp_path
):
    ones, tune = make_data(batch_size=1), Phase("tune", "all", 1, 1e-3)
    with pytest.raises(CxrnetError, match=r"^data.batch_size: 1, but phase 'head' trains a batch norm .*=2 or more$"):
        run(schedule(HEAD), make_network(hidden=(8,), batch_norm=True), ones)
    with pytest.raises(CxrnetError, match=r"^data.batch_size: 1, but phase 'tune' trains a batch norm"):
        run(schedule(HEAD, tune), make_network(backbone="mobilenet_v2"), ones)  # whose last maps are of one pixel here
    assert not list(tmp_path.rglob("*.ckpt"))


def test_batches_of_one_train_where_every_batch_norm_has_several_numbers_or_is_frozen(run, make_network, make_data):
    head = Phase("head", "head", 1, 1e-3)
    for network, *phases in (
        (make_network(), head, Phase("all", "all", 1, 1e-3)),
        (make_network(backbone="mobilenet_v2"), head),
    ):
        results, _, _, _ = run(schedule(*phases), network, make_data(batch_size=1))
        assert len(results) == len(phases)


# --- torch.compile


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_learns_what_it_would_have_learned(run, make_network, tmp_path):
    plan = schedule(HEAD, Phase("all", "all", 2, 1e-3))
    _, plain, _, _ = run(plan, make_network(dropout=0.0))  # dropout draws other numbers when it is compiled
    shutil.rmtree(tmp_path / "run")
    _, compiled, network, _ = run(plan, make_network(dropout=0.0), compiled=True)
    assert [row["train/loss"] for row in compiled.rows] == pytest.approx(
        [row["train/loss"] for row in plain.rows], 1e-3
    )
    assert network(torch.zeros(2, 1, 32, 32, dtype=torch.uint8)).shape == (2, 3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("trainable", ["head", {"from": "block3"}])
def test_a_compiled_front_makes_the_same_features(run, make_network, tmp_path, monkeypatch, trainable):
    plan = schedule(Phase("part", trainable, 2, 1e-3), features_gb=0)
    losses, compiled_parts = [], []
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda part: (compiled_parts.append(type(part)), compile_module(part)))
    for compiled in (False, True):
        torch._dynamo.reset()
        _, history, _, _ = run(plan, make_network(dropout=0.0), compiled=compiled)
        losses.append([row[name] for row in history.rows for name in ("train/loss", "val/loss")])
        shutil.rmtree(tmp_path / "run")
    assert losses[1] == pytest.approx(losses[0], 1e-3)
    assert compiled_parts == [nn.Sequential, Classifier]  # the trunk, and the trainable part


@pytest.mark.slow
def test_a_compiler_that_fails_is_told_in_one_line(run, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/g++",))
    with pytest.raises(CxrnetError, match=r"compile: torch.compile failed \([^\n]*\); give compile=false"):
        run(schedule(Phase("all", "all", 1, 1e-3)), compiled=True)
