import dataclasses
import json
import logging
import multiprocessing
import os
import resource
import signal

import numpy as np
import pytest
import torch

from cxrnet.data.augment import Geometric, geometric
from cxrnet.data.images.resize import Images
from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import set_trainable
from cxrnet.models.trunk import split_network
from cxrnet.training.feature_tables import Views, digest, features_of

CPU = torch.device("cpu")
AUGMENT = geometric(flip=0, degrees=10, translate=0.1, shear=0, zoom=0.1, distortion=0)
FORK = multiprocessing.get_context("fork")


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


# --- on disk


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


def test_two_processes_compute_one_table(half, tmp_path):
    parts, views = half(), views_of(200)
    shape = parts.shape((32, 32))
    parts.trunk.register_forward_hook(lambda *_: note())

    def note():
        with (tmp_path / "batches.txt").open("a") as file:
            file.write(f"{os.getpid()}\n")

    def work():
        table = features_of(parts.trunk, views, shape, CPU, 32, tmp_path / "cache")
        os._exit(0 if table.shape == (1, 200, 128) and table[0, -1].any() else 1)

    jobs = [FORK.Process(target=work) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    makers = (tmp_path / "batches.txt").read_text().split()
    assert len(makers) == 7  # 200 images in batches of 32
    assert len(set(makers)) == 1


def test_a_table_that_was_cut_short_is_never_read(half, tmp_path):
    parts, views = half(), views_of(100)
    shape = parts.shape((32, 32))
    half.batches.clear()

    def die(*_):
        if len(half.batches) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    handle = parts.trunk.register_forward_hook(die)
    job = FORK.Process(target=features_of, args=(parts.trunk, views, shape, CPU, 32, tmp_path))
    job.start()
    job.join()
    handle.remove()
    assert job.exitcode == -signal.SIGKILL
    assert [file.parent.suffix for file in tmp_path.rglob("*.npy")] == [".partial"]
    table = features_of(parts.trunk, views, shape, CPU, 32, tmp_path)
    assert np.array_equal(table, features_of(parts.trunk, views, shape, CPU, 32, None))
    assert [file.parent.suffix for file in tmp_path.rglob("*.npy")] == [""]


def test_a_full_disk(half, tmp_path):
    parts, views = half({"from": "block3"}), views_of(100)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may be larger
    try:
        with pytest.raises(CxrnetError, match=r"^cache: '.*' can't be written \(.*\); free space, .*cache=null$"):
            table_of(parts, views, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_digest_is_of_structure_and_numbers_alone():
    def made(**changes):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, **changes), torch.nn.BatchNorm2d(4))

    assert digest(made()) == digest(made().to(memory_format=torch.channels_last))
    assert digest(made()) != digest(made(stride=2))
    changed = made()
    changed[1].running_var[0] = 2.0
    assert digest(made()) != digest(changed)
