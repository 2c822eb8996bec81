"""Features of a network that nobody trained on the images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.training.frozen import BACKBONE, SIZE, frozen_features, weights_at_hand


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(backbone_spec(BACKBONE).build(SIZE).state_dict(), file)
    return str(file)


def test_features_are_those_of_each_image_and_come_from_the_cache(make_data, weights, tmp_path):
    data = make_data(cache=tmp_path)
    features = frozen_features(data, weights)
    assert features.shape == (36, 1280)
    assert len(np.unique(features, axis=0)) == 36
    (table,) = (tmp_path / "features").glob("*/table.npy")
    written = table.stat().st_mtime_ns
    assert np.array_equal(frozen_features(data, weights), features)
    assert table.stat().st_mtime_ns == written


def test_only_weights_that_are_there_are_taken(monkeypatch, tmp_path, weights):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert weights_at_hand("auto") is None  # and nothing is downloaded
    assert weights_at_hand("none") is None
    assert weights_at_hand(weights) == weights
    cached = backbone_spec(BACKBONE).published.cached()
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert weights_at_hand("auto") == str(cached)
    with pytest.raises(CxrnetError, match="weights: 'nowhere' is not a file"):
        weights_at_hand("nowhere")


def test_a_file_of_another_network_is_refused_under_the_key_of_the_command(make_data, tmp_path: Path):
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CxrnetError, match=r"^weights: '.*other.safetensors' is not of the architecture mobilenet_v2"):
        frozen_features(make_data(), str(tmp_path / "other.safetensors"))
