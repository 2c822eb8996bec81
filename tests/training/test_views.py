"""The cost in quality of K stored views, beside augmenting anew in every epoch, on real X-rays."""

from functools import partial

import numpy as np
import pytest
import torch

from cxrnet.data.augment import geometric
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.sources.covid19_image import covid19_image
from cxrnet.data.splits import split_manifest
from cxrnet.models.backbones.weights import load_weights
from cxrnet.models.network import Network
from cxrnet.training.phases import run_phases
from cxrnet.training.schedule import Phase, Schedule

LIGHT = geometric(flip=0, degrees=8, translate=0.05, shear=0, zoom=0.08, distortion=0)
HEAD = Phase("head", "head", epochs=12, lr=3e-3)
SEEDS = (0, 1, 2, 3, 4)
FRACTIONS = {"train": 0.6, "val": 0.4}


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_views_are_not_worse_than_augmenting_in_every_epoch(shared, make_network, make_training, tmp_path):
    data = XrayDataModule(
        manifest=partial(covid19_image, shared / "data" / "covid19_image" / "Covid19-dataset"),
        split=partial(split_manifest, fractions=FRACTIONS, seed=0),
        size=(224, 224), resize="stretch", augment=LIGHT, batch_size=32, sampler="shuffle", num_workers=0,
        on_error="fail", seed=0,
    )  # fmt: skip
    data.setup()
    config = make_network(backbone="mobilenet_v2", size=(224, 224), dropout=0.0).config
    torch.set_num_threads(2)

    def best_epoch(views: int, seed: int) -> tuple[float, float]:
        """Validation loss and accuracy of the epoch that is kept."""
        torch.manual_seed(seed)
        network = Network(config)
        weights = shared / "weights" / "mobilenet_v2-imagenet-features.safetensors"
        load_weights(network.backbone, "mobilenet_v2", str(weights), (224, 224))
        shuffled = data.resplit(lambda manifest: split_manifest(manifest, FRACTIONS, seed=0), seed, shared=False)
        plan = Schedule((HEAD,), HEAD, "val/loss", views, features_gb=1, best_from=0)
        _, history = run_phases(network, shuffled, make_training(plan, tmp_path / f"{views}_{seed}", seed=seed))
        best = history.kept(HEAD.name, plan, last=False)
        return best["val/loss"], best["val/accuracy"]

    # Row by row the same seed: the same head to begin with, the same order of the images, the same split throughout.
    online, stored = (np.array([best_epoch(views, seed) for seed in SEEDS]) for views in (0, 2))
    spreads = np.array([online.std(axis=0, ddof=1), stored.std(axis=0, ddof=1)])
    worse = ((stored - online) * (1, -1)).mean(axis=0)
    for place, name in enumerate(("loss", "accuracy")):
        print(f"{name}: online {online[:, place].round(4)}, two views {stored[:, place].round(4)}")
        print(f"{name}: spreads {spreads[:, place].round(4)}, two views worse by {worse[place]:.4f} in the mean")
    # What another seed does too, augmenting online, is no loss. The spread of the views isn't asked, or views that are
    # bad in some seeds would excuse themselves.
    assert worse[0] < spreads[0, 0]
    # Accuracies move by whole images, and all seeds may agree by chance: one image is no difference.
    assert worse[1] < max(spreads[0, 1], 1.5 / len(data.rows("val")))
