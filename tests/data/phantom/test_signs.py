import numpy as np
import pytest

from cxrnet.data.phantom.anatomy import View, draw_anatomy, organ_paths
from cxrnet.data.phantom.signs import CLASSES, draw_lesion

VIEW = View(size=128, field=36.0, right=0.0, down=0.0, roll=0.0, turn=0.0, tilt=0.0)


def shares(label, seed):
    """Share of the right lung, the left lung and the lower half of the lungs that a lesion covers."""
    rng = np.random.default_rng(seed)
    anatomy = draw_anatomy(rng)
    lung = organ_paths(anatomy, VIEW, 0.0).mask
    lesion = draw_lesion(label, anatomy, rng)
    inside = lung & (lesion.seen(VIEW, 0.0)[1] >= 0.5)
    rows = np.flatnonzero(lung.any(axis=1))
    below = np.arange(128)[:, None] > rows.mean()
    right = np.broadcast_to(np.arange(128) < 64, lung.shape)
    return [(inside & part).sum() / (lung & part).sum() for part in (right, ~right, below, ~below)]


@pytest.mark.parametrize("seed", range(6))
def test_covid_is_in_both_lungs_and_mostly_below(seed):
    right, left, below, above = shares("COVID-19", seed)
    assert min(right, left) > 0.05
    assert below > above


@pytest.mark.parametrize("seed", range(6))
def test_an_opacity_is_in_one_lung(seed):
    right, left, _, _ = shares("Lung Opacity", seed)
    assert max(right, left) > 0.1
    assert min(right, left) < 0.02


@pytest.mark.parametrize("seed", range(6))
def test_viral_pneumonia_is_everywhere(seed):
    assert min(shares("Viral Pneumonia", seed)) > 0.4


def test_a_normal_chest_has_no_signs():
    rng = np.random.default_rng(0)
    assert draw_lesion("Normal", draw_anatomy(rng), rng) is None
    assert "Normal" in CLASSES
