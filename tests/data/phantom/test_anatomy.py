import numpy as np
import pytest

from cxrnet.data.phantom.anatomy import Cloud, View, splat, tube

VIEW = View(size=200, field=40.0, right=1.0, down=-2.0, roll=0.05, turn=0.08, tilt=0.06)
STRAIGHT = View(size=200, field=40.0, right=0.0, down=0.0, roll=0.0, turn=0.0, tilt=0.0)


def test_plane_and_project_are_inverse():
    x, z = VIEW.plane(4.0)
    rows, columns = np.array([20, 100, 170]), np.array([150, 60, 33])
    # A plane at a depth is parallel to the detector up to the turn, which is small.
    points = np.stack([x[rows, columns], np.full(3, 4.0), z[rows, columns]])
    found = VIEW.project(points)
    assert np.allclose(found, [columns, rows], atol=2.5)


def test_what_is_nearer_to_the_tube_is_larger():
    back, front = (STRAIGHT.project(np.array([[5.0], [y], [0.0]]))[0][0] - 99.5 for y in (-9.0, 9.0))
    assert back > front > 0


def test_splat_keeps_the_volume():
    rng = np.random.default_rng(0)
    cloud = Cloud(rng.normal(0, 3, (3, 500)), rng.random(500))
    assert splat(cloud, STRAIGHT).sum() * STRAIGHT.pixel**2 == pytest.approx(cloud.volumes.sum())


def test_what_falls_beside_the_detector_does_not_show():
    assert not splat(
        Cloud(np.array([[-50.0, 50.0, 0.0, 0.0], 4 * [0.0], [0.0, 0.0, -50.0, 50.0]]), np.ones(4)), STRAIGHT
    ).any()


def test_a_tube_has_the_volume_of_wall_and_sponge():
    x = np.linspace(-10, 10, 400)
    curve = np.stack([x, 0 * x, 0 * x])
    across = np.stack([0 * x, 1 + 0 * x, 0 * x])
    cloud = tube(curve, across, np.ones(400), np.ones(400), around=60, wall=0.1)
    assert cloud.volumes.sum() == pytest.approx(20 * (2 * np.pi * 0.1 + 0.25 * np.pi), rel=0.02)
