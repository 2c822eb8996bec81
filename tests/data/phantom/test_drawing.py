from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cxrnet.data.phantom import render
from cxrnet.data.phantom.anatomy import Cloud, View, draw_anatomy, splat
from cxrnet.data.phantom.organs import draw_lesion, organ_paths
from cxrnet.data.phantom.render import _develop, _draw_exposure, stamp

STRAIGHT = View(size=128, field=36.0, right=0.0, down=0.0, roll=0.0, turn=0.0, tilt=0.0)
WEDGE = np.repeat(np.linspace(0.5, 4.0, 96)[None], 96, axis=0)


def test_plane_and_project_are_inverse():
    view = View(size=200, field=40.0, right=1.0, down=-2.0, roll=0.05, turn=0.08, tilt=0.06)
    x, z = view.plane(4.0)
    rows, columns = np.array([20, 100, 170]), np.array([150, 60, 33])
    # A plane at a depth is parallel to the detector up to the turn, which is small.
    found = view.project(np.stack([x[rows, columns], np.full(3, 4.0), z[rows, columns]]))
    assert np.allclose(found, [columns, rows], atol=2.5)


def test_splat_keeps_the_volume_and_what_falls_beside_the_detector_does_not_show():
    rng = np.random.default_rng(0)
    cloud = Cloud(rng.normal(0, 3, (3, 500)), rng.random(500))
    assert splat(cloud, STRAIGHT).sum() * STRAIGHT.pixel**2 == pytest.approx(cloud.volumes.sum())
    beside = np.array([[-50.0, 50.0, 0.0, 0.0], 4 * [0.0], [0.0, 0.0, -50.0, 50.0]])
    assert not splat(Cloud(beside, np.ones(4)), STRAIGHT).any()


def exposure(**change):
    still = {"noise": 0.0, "heel": 0.0, "blades": (0.0, 0.0, 0.0, 0.0), "letter": ""}
    return replace(_draw_exposure(np.random.default_rng(0)), **(still | change))


def test_more_tissue_is_brighter():
    grey = _develop(WEDGE, 36.0, exposure(), np.random.default_rng(0)).astype(int)
    profile = grey[:, 8:-8].mean(axis=0)  # at the border the local contrast has only one side
    assert (np.diff(profile) >= 0).all()
    assert profile[-1] - profile[0] > 100


def test_a_stamp_at_the_border_is_cut_off():
    grey = np.zeros((64, 64))
    stamp(grey, "AP", (0.95, 0.95, 0.2))
    assert grey[60:, 60:].any()
    assert not grey[:60, :60].any()


@pytest.mark.parametrize("seed", range(6))
def test_signs_lie_where_the_disease_has_them(seed):
    def shares(label):
        """Share of the right lung, the left lung, the lower and the upper half of the lungs that a lesion covers."""
        rng = np.random.default_rng(seed)
        anatomy = draw_anatomy(rng)
        lung = organ_paths(anatomy, STRAIGHT, 0.0).mask
        inside = lung & (draw_lesion(label, anatomy, rng).seen(STRAIGHT, 0.0)[1] >= 0.5)
        below = np.arange(128)[:, None] > np.flatnonzero(lung.any(axis=1)).mean()
        right = np.broadcast_to(np.arange(128) < 64, lung.shape)
        return [(inside & part).sum() / (lung & part).sum() for part in (right, ~right, below, ~below)]

    right, left, below, above = shares("COVID-19")  # in both lungs and mostly below
    assert min(right, left) > 0.05
    assert below > above
    right, left, _, _ = shares("Lung Opacity")  # in one lung
    assert max(right, left) > 0.1
    assert min(right, left) < 0.02
    assert min(shares("Viral Pneumonia")) > 0.4  # everywhere
    assert draw_lesion("Normal", draw_anatomy(np.random.default_rng(seed)), np.random.default_rng(seed)) is None


def test_several_processes_draw_what_one_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "_WORTH", 1)
    for cores in (1, 3):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        render.draw(tmp_path / str(cores), images=8, size=64, seed=3)
    one, many = (
        {path.relative_to(tmp_path / name): path for path in (tmp_path / name).rglob("*.png")} for name in "13"
    )
    assert one.keys() == many.keys()
    assert len(one) == 3 * 8
    for name, path in one.items():
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(many[name])))


def test_a_helper_that_fails_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "_WORTH", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("sys.path", [])  # the helper inherits it
    monkeypatch.setattr(render, "__name__", "cxrnet_that_is_not_there")
    with pytest.raises(RuntimeError, match=r"a drawing process failed: .*cxrnet_that_is_not_there"):
        render.draw(tmp_path, images=8, size=64, seed=3)
