from functools import partial

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from cxrnet.data.augment import geometric
from cxrnet.models.freezing import set_trainable
from cxrnet.training.features import FeatureDataModule, FeatureDataset, compute_features

CPU = torch.device("cpu")
AUGMENT = geometric(flip=0, degrees=10, translate=0.1, shear=0, zoom=0.1, distortion=0)


def images_of(n: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32), np.uint8)


def test_features_are_those_of_the_frozen_network(make_network):
    network, images = make_network(), images_of()
    table = compute_features(network, images, None, 1, 0, 2, CPU)
    assert table.shape == (1, 5, 128)
    assert table.dtype == torch.float32
    with torch.inference_mode():
        expected = network.eval().features(torch.from_numpy(images).unsqueeze(1))
    torch.testing.assert_close(table[0], expected, atol=1e-6, rtol=1e-5)


def test_every_view_is_augmented_anew_and_by_its_seed(make_network):
    network, images = make_network(), images_of()
    table = compute_features(network, images, AUGMENT, 3, 7, 2, CPU)
    assert table.shape == (3, 5, 128)
    for one, other in ((0, 1), (1, 2)):
        assert not torch.allclose(table[one], table[other])
    assert torch.equal(table, compute_features(network, images, AUGMENT, 3, 7, 2, CPU))
    assert not torch.allclose(table, compute_features(network, images, AUGMENT, 3, 8, 2, CPU))


def test_every_image_is_augmented_by_itself(make_network):
    same = np.repeat(images_of(1), 4, axis=0)
    table = compute_features(make_network(), same, AUGMENT, 1, 0, 4, CPU)
    assert not torch.allclose(table[0, 0], table[0, 1])


def test_the_batch_size_does_not_change_the_views(make_network):
    network, images = make_network(), images_of()
    one, five = (compute_features(network, images, AUGMENT, 2, 0, size, CPU) for size in (1, 5))
    torch.testing.assert_close(one, five, atol=1e-5, rtol=1e-5)


def test_the_random_state_of_the_caller_is_left_alone(make_network):
    network, images = make_network(), images_of()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    compute_features(network, images, AUGMENT, 2, 0, 2, CPU)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_keeps_its_mode_and_its_statistics(make_network, training):
    network = make_network(dropout=0.5).train(training)
    set_trainable(network, "head")
    modes = {name: module.training for name, module in network.named_modules()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    compute_features(network, images_of(), AUGMENT, 2, 0, 2, CPU)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_batch_draws_a_view_for_each_image():
    table = torch.arange(4 * 50).reshape(4, 50, 1).float()
    dataset = FeatureDataset(table, torch.arange(50))
    torch.manual_seed(0)
    batch = dataset.__getitems__(list(range(49, -1, -1)))
    assert batch["label"].tolist() == list(range(49, -1, -1))
    assert (batch["features"][:, 0] % 50).long().tolist() == list(range(49, -1, -1))
    assert set((batch["features"][:, 0] // 50).long().tolist()) == {0, 1, 2, 3}
    assert len(dataset) == 50


def test_one_view_draws_no_random_number():
    dataset = FeatureDataset(torch.zeros(1, 5, 2), torch.arange(5))
    state = torch.get_rng_state()
    dataset.__getitems__([1, 2])
    assert torch.equal(torch.get_rng_state(), state)


def test_views_are_for_training_and_for_augmentation_alone(make_network, make_data):
    augmented = FeatureDataModule(make_data(augment=AUGMENT), make_network(), 4, 0)
    augmented.setup()
    assert len(augmented.tables["train"].features) == 4
    assert len(augmented.tables["val"].features) == 1
    plain = FeatureDataModule(make_data(), make_network(), 4, 0)
    plain.setup()
    assert len(plain.tables["train"].features) == 1


def test_batches_hold_the_labels_of_their_features(make_network, make_data):
    data, network = make_data(), make_network()
    features = FeatureDataModule(data, network, 1, 0)
    features.setup()
    images, labels = data.arrays("train")
    with torch.inference_mode():
        expected = network.eval().features(torch.from_numpy(images).unsqueeze(1))
    seen = 0
    for batch in features.train_dataloader():
        for vector, label in zip(batch["features"], batch["label"], strict=True):
            place = int((expected - vector).abs().sum(dim=1).argmin())
            assert labels[place] == label
            seen += 1
    assert seen == 18
    assert torch.equal(torch.cat([b["label"] for b in features.val_dataloader()]), data.arrays("val")[1])


def test_setup_does_its_work_once(make_network, make_data):
    features = FeatureDataModule(make_data(), make_network(), 1, 0)
    features.setup()
    tables = dict(features.tables)
    features.setup("fit")
    assert all(features.tables[name] is table for name, table in tables.items())


def test_any_augmentation_of_torchvision_will_do(make_network, make_data):
    noisy = partial(v2.RandomHorizontalFlip, p=0.5)()
    features = FeatureDataModule(make_data(augment=noisy), make_network(), 2, 0)
    features.setup()
    assert features.tables["train"].features.shape == (2, 18, 128)
