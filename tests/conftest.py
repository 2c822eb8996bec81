"""What every test may ask for."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrnet.memory import keep_freed_memory

keep_freed_memory()  # as the commands do; it makes the tests that train faster
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real X-rays and weights; tests that need it are skipped without it.

    CI sets CXRNET_REQUIRE_SHARED=1, which turns the skip into a failure.
    """
    folder = Path(os.environ.get("CXRNET_SHARED", REPOSITORY.parent / "shared"))
    if (folder / "data").is_dir() and (folder / "weights").is_dir():
        return folder
    message = f"no real X-rays at '{folder}': set CXRNET_SHARED to the folder that holds data/ and weights/"
    if os.environ.get("CXRNET_REQUIRE_SHARED") == "1":
        pytest.fail(message)
    pytest.skip(message)


def draw_xrays(
    root: Path, classes=("Covid", "Normal", "Viral Pneumonia"), images: int = 12, size=(48, 40), seed: int = 0
) -> Path:
    """Draw small grey images, a folder a class; the class shows in where a bright band lies."""
    rng = np.random.default_rng(seed)
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(images):
            blobs = Image.fromarray(rng.integers(0, 120, (7, 6), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
            image = np.asarray(blobs) + rng.integers(0, 40, size)
            band = size[1] * place // len(classes)
            image[:, band : band + size[1] // len(classes)] += 90
            Image.fromarray(image.astype(np.uint8)).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def draw() -> Callable[..., Path]:
    """The function above, for tests, which can't import from here."""
    return draw_xrays


@pytest.fixture(scope="session")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve images in class folders; not to be changed."""
    return draw_xrays(tmp_path_factory.mktemp("data") / "small set")


@pytest.fixture
def make_data(xrays: Path) -> Callable:
    """Makes a data module of the small images, set up: 18 for training, 9 for validation, 9 for testing."""
    import torch

    from cxrnet.data.datamodule import XrayDataModule
    from cxrnet.data.sources.folder import folder
    from cxrnet.data.splits import split_manifest

    torch.set_num_threads(1)
    halves = {"train": 0.5, "val": 0.25, "test": 0.25}

    def make(**changes) -> XrayDataModule:
        settings = {
            "manifest": partial(folder, xrays),
            "split": partial(split_manifest, fractions=halves, seed=0),
            "size": (32, 32),
            "resize": "stretch",
            "augment": None,
            "batch_size": 8,
            "sampler": "shuffle",
            "num_workers": 0,
            "on_error": "fail",
            "seed": 0,
        }
        data = XrayDataModule(**{**settings, **changes})
        data.setup()
        return data

    return make


@pytest.fixture
def make_network() -> Callable:
    """Makes a small network; the same settings give the same weights."""
    import torch

    from cxrnet.models.network import Network, NetworkConfig

    torch.set_num_threads(1)

    def make(**changes) -> Network:
        settings = {
            "backbone": "custom_cnn",
            "classes": ("Covid", "Normal", "Viral Pneumonia"),
            "size": (32, 32),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "pool": "average",
            "pool_window": None,
            "hidden": (),
            "activation": "relu",
            "batch_norm": False,
            "dropout": 0.2,
            "l2": 0.0,
            "output": "softmax",
        }
        torch.manual_seed(0)
        return Network(NetworkConfig(**{**settings, **changes}))

    return make


@pytest.fixture
def bundle(make_network: Callable):
    """A bundle of that network for images of 40 x 32 pixels, which it pads."""
    from cxrnet.models.bundle import Bundle

    return Bundle(make_network(size=(40, 32)), "pad", 1.0, {}, "", {}, {})


@pytest.fixture
def own_manifest(xrays: Path) -> Callable:
    """Makes the manifest of the run that a bundle is of: which of the twelve images of a class are for training."""
    from cxrnet.data.sources.folder import folder
    from cxrnet.data.store import load_images

    def make(is_training: Callable[[int], bool]):
        table, _ = load_images(folder(xrays), (8, 8), "stretch", "fail")
        train = table["image_id"].map(lambda name: is_training(int(Path(name).stem)))
        return table.assign(split=train.map({True: "train", False: "test"}).astype("string"))

    return make


@pytest.fixture
def read_external(bundle) -> Callable:
    """Reads class folders as an external data set of the bundle: root, name, and its class by each label."""
    from cxrnet.external_sets import read_set

    def call(root: Path, name: str = "north", on_error: str = "fail", key: str = "data", **labels: str | None):
        source = {"_target_": "cxrnet.data.sources.folder.folder", "_partial_": True, "root": str(root)}
        config = {"manifest": source, "on_error": on_error, "cache": None, "known_faults": {name: ["it is small"]}}
        return read_set(name, key, config, labels, bundle)

    return call
