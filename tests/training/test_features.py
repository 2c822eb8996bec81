import dataclasses
import json
import logging
from functools import partial

import numpy as np
import pytest
import torch

from cxrnet.core import process
from cxrnet.data.augment import Geometric, geometric
from cxrnet.data.images.reader import Images
from cxrnet.data.loading import Share
from cxrnet.data.splits import fold_manifest
from cxrnet.models.freezing import set_trainable, split_network
from cxrnet.training.feature_tables import Views, digest, features_of
from cxrnet.training.features import FeatureDataModule, FeatureDataset, TrunkDataModule, make_feed
from cxrnet.training.schedule import Phase, Schedule

CPU = torch.device("cpu")
AUGMENT = geometric(flip=0, degrees=10, translate=0.1, shear=0, zoom=0.1, distortion=0)
HEAD = Phase("head", "head", epochs=3, lr=1e-2)
PART = Phase("part", {"from": "block3"}, epochs=3, lr=1e-2)


def feature_data(network, data, views: int = 1, trainable="head") -> FeatureDataModule:
    set_trainable(network, trainable)
    features = FeatureDataModule(data, split_network(network), views, 0)
    features.setup()
    return features


# --- a table


def batch_of(indices) -> Share:
    """A whole batch, of one process."""
    return Share(list(indices), slice(0, None, 1), len(indices))


def test_a_batch_draws_a_view_for_each_image():
    table = np.arange(4 * 50, dtype=np.float32).reshape(4, 50, 1)
    dataset = FeatureDataset(table, torch.arange(50), torch.arange(50))
    torch.manual_seed(0)
    batch = dataset[batch_of(range(49, -1, -1))]
    assert batch["label"].tolist() == list(range(49, -1, -1))
    assert (batch["features"][:, 0] % 50).long().tolist() == list(range(49, -1, -1))
    assert set((batch["features"][:, 0] // 50).long().tolist()) == {0, 1, 2, 3}
    assert len(dataset) == 50


def test_processes_draw_the_views_that_one_would():
    table = np.arange(4 * 50, dtype=np.float32).reshape(4, 50, 1)
    torch.manual_seed(0)
    whole = FeatureDataset(table, torch.arange(50), torch.arange(50))[batch_of(range(49))]["features"]
    for rank in range(3):
        stream = torch.Generator().manual_seed(0)
        share = Share([*range(rank, 49, 3)], slice(rank, None, 3), 49)
        batch = FeatureDataset(table, torch.arange(50), torch.arange(50), stream)[share]
        assert torch.equal(batch["features"], whole[rank::3])


def test_maps_are_channels_first_in_the_layout_of_the_network():
    table = np.random.default_rng(0).random((2, 5, 3, 4, 6), np.float32)
    features = FeatureDataset(table[:1], torch.arange(5), torch.arange(5))[batch_of([4, 0])]["features"]
    assert features.shape == (2, 6, 3, 4)
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(features[0, 2], table[0, 4, :, :, 2])


def test_one_view_draws_no_random_number():
    dataset = FeatureDataset(np.zeros((1, 5, 2), np.float32), torch.arange(5), torch.arange(5))
    state = torch.get_rng_state()
    dataset[batch_of([1, 2])]
    assert torch.equal(torch.get_rng_state(), state)


def test_views_are_for_training_and_for_augmentation_alone(make_network, make_data):
    augmented = feature_data(make_network(), make_data(augment=AUGMENT), views=4)
    assert len(augmented.tables["train"].table) == 4
    assert len(augmented.tables["val"].table) == 1
    assert len(feature_data(make_network(), make_data(), views=4).tables["train"].table) == 1


@pytest.mark.parametrize("trainable", ["head", {"from": "block2"}])
def test_the_size_of_the_tables_is_known_before_they_are_made(make_network, make_data, trainable):
    data, network = make_data(augment=AUGMENT), make_network()
    set_trainable(network, trainable)
    features = FeatureDataModule(data, split_network(network), 3, 0)
    expected = features.n_bytes
    features.setup()
    assert sum(dataset.table.nbytes for dataset in features.tables.values()) == expected


def test_batches_hold_the_labels_of_their_features(make_network, make_data):
    data, network = make_data(), make_network()
    features = feature_data(network, data)
    images, labels = data.arrays("train")
    with torch.inference_mode():
        expected = network.eval().features(torch.from_numpy(images[:]).unsqueeze(1))
    seen = 0
    for batch in features.train_dataloader():
        for vector, label in zip(batch["features"], batch["label"], strict=True):
            place = int((expected - vector).abs().sum(dim=1).argmin())
            assert labels[place] == label
            seen += 1
    assert seen == 18
    assert torch.equal(torch.cat([b["label"] for b in features.val_dataloader()]), data.arrays("val")[1])


@pytest.mark.parametrize("training", [True, False])
def test_the_network_keeps_its_mode_and_its_statistics(make_network, make_data, training):
    network = make_network(dropout=0.5).train(training)
    set_trainable(network, "head")
    modes = {name: module.training for name, module in network.named_modules()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    feature_data(network, make_data(augment=AUGMENT), views=2)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_tables_lie_in_the_cache_of_the_data(make_network, make_data, tmp_path):
    for batch_size in (4, 8):  # of no effect
        feature_data(make_network(), make_data(cache=tmp_path, augment=AUGMENT, batch_size=batch_size), views=2)
    assert len(list(tmp_path.glob("features/*/table.npy"))) == 2  # train and val


@pytest.mark.parametrize(("augment", "n_tables"), [(None, 1), (AUGMENT, 2)])
def test_folds_share_the_tables_of_all_images(make_network, make_data, tmp_path, augment, n_tables):
    data = make_data(cache=tmp_path, augment=augment)
    network = make_network()
    for fold in range(3):
        split = partial(fold_manifest, folds=3, fold=fold, by="image", seed=0)
        part = data.resplit(split, seed=0, shared=True)
        features = feature_data(network, part, views=2)
        assert features.n_bytes == sum(path.stat().st_size - 128 for path in tmp_path.glob("features/*/table.npy"))
        for name in ("train", "val"):
            images, labels = part.arrays(name)
            dataset = features.tables[name]
            assert len(dataset) == len(images)
            batch = dataset[batch_of(range(len(images)))]
            assert torch.equal(batch["label"], labels)
            if augment is None or name == "val":
                expected = features.parts.trunk(torch.from_numpy(images[:]).unsqueeze(1))
                torch.testing.assert_close(batch["features"], expected, rtol=0, atol=1e-5)
    assert len(list(tmp_path.glob("features/*/table.npy"))) == n_tables


@pytest.mark.parametrize(
    "changes", [{"cache": None, "augment": AUGMENT}, {"augment": lambda images: images.flip(-1)}], ids=["memory", "own"]
)
def test_folds_that_can_keep_no_table_compute_their_own_splits_alone(make_network, make_data, tmp_path, changes):
    data = make_data(**{"cache": tmp_path, **changes})
    part = data.resplit(partial(fold_manifest, folds=3, fold=0, by="image", seed=0), seed=0, shared=True)
    features = feature_data(make_network(), part, views=2)
    for name, dataset in features.tables.items():
        assert dataset.table.shape[1] == len(dataset) == len(part.rows(name)) < len(part.manifest)
    assert features.n_bytes == sum(dataset.table.nbytes for dataset in features.tables.values())


# --- what a phase trains on


@pytest.fixture
def feed_of(make_network, make_data, make_training, tmp_path):
    def make(phase, cached=None, data=None, **changes):
        network = make_network()
        set_trainable(network, phase.trainable)
        settings = {"scratch": HEAD, "monitor": "val/loss", "views": 2, "features_gb": 1, "best_from": 0, **changes}
        training = make_training(Schedule((phase,), **settings), tmp_path)
        return make_feed(network, data or make_data(augment=AUGMENT), training, phase, cached)

    return make


@pytest.mark.parametrize(
    ("phase", "changes", "kind", "cached"),
    [
        (HEAD, {}, FeatureDataModule, True),
        (dataclasses.replace(HEAD, epochs=1), {}, FeatureDataModule, True),
        (HEAD, {"features_gb": 45 * 128 * 4 / 1e9}, FeatureDataModule, True),
        (HEAD, {"features_gb": (45 * 128 * 4 - 1) / 1e9}, TrunkDataModule, False),
        (HEAD, {"views": 0}, None, False),
        (PART, {}, FeatureDataModule, True),
        (PART, {"views": 0}, None, False),
        (PART, {"views": 1}, TrunkDataModule, False),  # what trains a part of the backbone sees augmented images
        (PART, {"features_gb": 0}, TrunkDataModule, False),
        (PART, {"features_gb": 45 * 64 * 8 * 8 * 4 / 1e9}, FeatureDataModule, True),  # 2 x 18 + 9 maps
        (PART, {"features_gb": (45 * 64 * 8 * 8 * 4 - 1) / 1e9}, TrunkDataModule, False),
        (dataclasses.replace(PART, epochs=2), {}, TrunkDataModule, False),  # no more epochs than views
        (Phase("all", "all", epochs=3, lr=1e-2), {}, None, False),
    ],
)
def test_what_a_phase_trains_on(feed_of, make_data, phase, changes, kind, cached):
    data = make_data(augment=AUGMENT)
    feed = feed_of(phase, data=data, **changes)
    assert feed.cached is cached
    assert (feed.data is data and feed.trainable_part is None) if kind is None else type(feed.data) is kind


@pytest.mark.parametrize(("cached", "kind"), [(True, FeatureDataModule), (False, TrunkDataModule)])
@pytest.mark.parametrize("phase", [HEAD, PART])
@pytest.mark.parametrize("gigabytes", [0, 1])
def test_a_resumed_phase_trains_on_what_it_began_with(feed_of, phase, gigabytes, cached, kind):
    feed = feed_of(phase, cached, features_gb=gigabytes)
    assert (type(feed.data), feed.cached) == (kind, cached)


@pytest.mark.parametrize(
    ("phase", "gigabytes", "lines"), [(HEAD, 1e-5, 1), (HEAD, 0, 0), (HEAD, 1, 0), (PART, 1e-5, 0)]
)
def test_features_of_a_whole_backbone_that_are_too_many_are_told(feed_of, caplog, phase, gigabytes, lines):
    feed_of(phase, features_gb=gigabytes)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * lines
    assert ("features of phase 'head' would take 2.3e-05 GB, more than 1e-05 GB" in caplog.text) is bool(lines)


@pytest.mark.parametrize(("jobs", "kind"), [(1, FeatureDataModule), (2, FeatureDataModule), (3, TrunkDataModule)])
def test_jobs_at_once_divide_what_stored_features_may_take(feed_of, caplog, monkeypatch, jobs, kind):
    monkeypatch.setattr(process, "_jobs_at_once", jobs)
    feed = feed_of(HEAD, features_gb=2 * 45 * 128 * 4 / 1e9)
    assert type(feed.data) is kind
    assert ("1.536e-05 GB (shared by 3 jobs at once)" in caplog.text) is (jobs == 3)


# --- features of some images


def images_of(n: int = 5, seed: int = 0) -> Images:
    return Images.all_of(np.random.default_rng(seed).integers(0, 256, (n, 32, 32), np.uint8))


def views_of(n: int = 5, augment=None, number: int = 1, **changes) -> Views:
    settings = {"resize": "stretch", "augment": augment, "number": number, "seed": 0, **changes}
    return Views(images_of(n), [f"sha256 of {i}" for i in range(n)], **settings)


@pytest.fixture
def half(make_network):
    """A cut network; counts the batches that go through its trunk."""

    def make(trainable="head", **changes):
        network = make_network(**changes)
        set_trainable(network, trainable)
        parts = split_network(network)
        parts.trunk.register_forward_hook(lambda *_: batches.append(1))
        return parts

    batches = []
    make.batches = batches
    return make


def table_of(parts, views, cache=None) -> np.ndarray:
    return features_of(parts.trunk, views, parts.shape((32, 32)), CPU, 32, cache)


@pytest.mark.parametrize("in_cache", [True, False])
@pytest.mark.parametrize(("trainable", "shape"), [("head", (128,)), ({"from": "block3"}, (8, 8, 64))])
def test_a_table_holds_what_the_front_makes(half, tmp_path, trainable, shape, in_cache):
    parts, views = half(trainable), views_of(40)
    table = table_of(parts, views, tmp_path if in_cache else None)
    assert (table.shape, table.dtype) == ((1, 40, *shape), np.float32)
    with torch.no_grad():
        expected = parts.trunk(torch.from_numpy(views.images[:]).unsqueeze(1))
    torch.testing.assert_close(torch.tensor(table[0]).movedim(-1, 1), expected, atol=1e-5, rtol=1e-5)
    assert bool(list(tmp_path.rglob("*.npy"))) is in_cache


def test_every_view_is_augmented_anew_and_by_its_seed(half):
    parts = half()
    table = table_of(parts, views_of(augment=AUGMENT, number=3, seed=7))
    assert table.shape == (3, 5, 128)
    assert not any(np.allclose(table[one], table[other]) for one, other in ((0, 1), (1, 2), (0, 2)))
    assert np.array_equal(table, table_of(parts, views_of(augment=AUGMENT, number=3, seed=7)))
    assert not np.allclose(table, table_of(parts, views_of(augment=AUGMENT, number=3, seed=8)))


def test_every_image_is_augmented_by_itself(half):
    same = dataclasses.replace(views_of(augment=AUGMENT), images=images_of(1).take(np.zeros(5, np.int64)))
    table = table_of(half(), dataclasses.replace(same, number=2))
    assert np.allclose(table[0, 0], table[0, 1], atol=1e-5)  # the first view is the image itself
    assert not np.allclose(table[1, 0], table[1, 1])


def test_the_random_state_of_the_caller_is_left_alone(half):
    parts = half()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    table_of(parts, views_of(augment=AUGMENT, number=2))
    assert torch.equal(torch.rand(4), expected)


# --- the cache


def test_what_is_in_the_cache_is_not_computed_again(half, tmp_path):
    first = table_of(half(), views_of(augment=AUGMENT, number=2), tmp_path)
    half.batches.clear()
    parts = half()  # made anew of the same weights
    shape = parts.shape((32, 32))
    half.batches.clear()
    again = features_of(parts.trunk, views_of(augment=AUGMENT, number=2), shape, CPU, 32, tmp_path)
    assert not half.batches
    assert np.array_equal(first, again)
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable


@pytest.mark.parametrize(
    "changes",
    [
        {"digests": ["other files"] * 5},
        {"images": Images.all_of(np.zeros((5, 32, 48), np.uint8))},
        {"resize": "pad"},
        {"augment": geometric(flip=0, degrees=9, translate=0.1, shear=0, zoom=0.1, distortion=0)},
        {"augment": None},
        {"number": 3},
        {"seed": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_images_or_views_make_another_table(half, tmp_path, changes):
    views, parts = views_of(augment=AUGMENT, number=2), half()
    table_of(parts, views, tmp_path)
    table_of(parts, dataclasses.replace(views, **changes), tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 2


def test_another_trunk_or_arithmetic_makes_another_table_and_a_seed_that_draws_nothing_none(
    half, tmp_path, monkeypatch
):
    def tables():
        return len([path for path in (tmp_path / "features").iterdir() if path.is_dir()])

    parts = half()
    for seed in (0, 1):
        table_of(parts, views_of(seed=seed), tmp_path)
    assert tables() == 1
    *_, last = (module for module in parts.trunk.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        last.weight[0, 0, 0, 0] += 1e-3
    for other in (parts, half(mean=(0.5, 0.5, 0.5)), half(pool="max")):
        table_of(other, views_of(), tmp_path)
    assert tables() == 4
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    table_of(half(), views_of(), tmp_path)
    assert tables() == 5


def test_a_table_says_what_it_was_made_of(half, tmp_path):
    table_of(half(), views_of(augment=AUGMENT, number=2, seed=3), tmp_path)
    (file,) = tmp_path.rglob("made_of.json")
    made_of = json.loads(file.read_text())
    assert (made_of["augment"], made_of["views"], made_of["seed"]) == (repr(AUGMENT), 2, 3)
    assert made_of["size"] == [32, 32]


class Mirror(Geometric):
    """An augmentation whose text doesn't tell what it does."""

    def __call__(self, images):
        return images.flip(-1)


@pytest.mark.parametrize("own", [lambda images: images.flip(-1), Mirror(**dataclasses.asdict(AUGMENT))])
def test_an_augmentation_of_ones_own_stays_in_memory(half, tmp_path, caplog, own):
    with caplog.at_level(logging.INFO, logger="cxrnet"):
        table = table_of(half(), views_of(augment=own, number=2), tmp_path)
    assert not list(tmp_path.iterdir())
    with torch.no_grad():
        expected = half().trunk(torch.from_numpy(images_of().array[:, :, ::-1].copy()).unsqueeze(1))
    assert np.allclose(table[1], expected, atol=1e-5)
    assert "stay in memory" in caplog.text


def test_the_digest_is_of_structure_and_numbers_alone():
    def made(**changes):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, **changes), torch.nn.BatchNorm2d(4))

    assert digest(made()) == digest(made().to(memory_format=torch.channels_last))
    assert digest(made()) != digest(made(stride=2))
    changed = made()
    changed[1].running_var[0] = 2.0
    assert digest(made()) != digest(changed)
