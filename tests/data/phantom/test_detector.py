from dataclasses import replace

import numpy as np

from cxrnet.data.phantom.detector import develop, draw_exposure, stamp

WEDGE = np.repeat(np.linspace(0.5, 4.0, 96)[None], 96, axis=0)


def exposure(**change):
    still = {"noise": 0.0, "heel": 0.0, "blades": (0.0, 0.0, 0.0, 0.0), "letter": ""}
    return replace(draw_exposure(np.random.default_rng(0)), **(still | change))


def test_more_tissue_is_brighter():
    grey = develop(WEDGE, 36.0, exposure(), np.random.default_rng(0)).astype(int)
    profile = grey[:, 8:-8].mean(axis=0)  # at the border the local contrast has only one side
    assert (np.diff(profile) >= 0).all()
    assert profile[-1] - profile[0] > 100


def test_noise_and_collimator():
    grey = develop(WEDGE, 36.0, exposure(noise=0.003, blades=(0.1, 0, 0, 0.1)), np.random.default_rng(0))
    assert grey[:, :8].max() < 15
    assert grey[-8:].max() < 15
    assert np.diff(grey[:80, 80].astype(int)).any()


def test_a_stamp_at_the_border_is_cut_off():
    grey = np.zeros((64, 64))
    stamp(grey, "AP", (0.95, 0.95, 0.2))
    assert grey[60:, 60:].any()
    assert not grey[:60, :60].any()
