import numpy as np
import pytest

from cxrnet.data.images.deep import NotFiniteError, scale


def scaled(values: np.ndarray, rows: int = 7):
    return scale(lambda: (values[top : top + rows] for top in range(0, len(values), rows)), *values.shape)


@pytest.fixture
def twelve() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4096, (100, 80)).astype(np.uint16)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_without_outliers_from_minimum_to_maximum(twelve, kind):
    wide = twelve.astype(np.float64)
    want = np.rint((wide - wide.min()) * (255 / np.ptp(wide)))
    pixels, outliers = scaled(twelve.astype(kind))
    np.testing.assert_array_equal(pixels, want)
    assert not outliers


@pytest.mark.parametrize("share", [1 / 8000, 0.005, 0.015], ids=["one pixel", "small letter", "letter"])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_hot_pixels_and_burned_in_letters_do_not_crush_the_rest(twelve, share, kind):
    clean, values = scaled(twelve).pixels, twelve.astype(kind)
    hot = np.zeros(values.size, bool)
    hot[: round(share * values.size)] = True
    values.ravel()[hot] = 65535
    pixels, outliers = scaled(values)
    assert outliers
    assert (pixels.ravel()[hot] == 255).all()
    assert np.abs(pixels.astype(int) - clean).ravel()[~hot].max() <= 1


def test_letters_with_soft_edges_and_dead_pixels(twelve):
    values = twelve.astype(np.int32) + 30_000
    values.ravel()[:100] = np.linspace(36_000, 65_535, 100)
    values[50, 50] = -30_000
    pixels, outliers = scaled(values)
    assert outliers
    assert len(np.unique(pixels.ravel()[100:])) > 80  # a third at least
    assert pixels[50, 50] == 0


def test_a_float_of_any_size_is_an_outlier(twelve):
    values = twelve.astype(np.float32)
    values[5, 5] = 3e38
    assert len(np.unique(scaled(values).pixels)) > 250


def test_a_picture_that_is_mostly_background_keeps_its_content():
    values = np.zeros((100, 100), np.uint16)
    values[50, :80] = np.arange(80) * 50
    pixels, outliers = scaled(values)
    assert not outliers
    assert len(np.unique(pixels)) == 80


def test_a_constant_image_is_black():
    assert not scaled(np.full((9, 9), 4095, np.uint16)).pixels.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    values = np.ones((20, 20), np.float32)
    values[19, 19] = value
    with pytest.raises(NotFiniteError):
        scaled(values)


@pytest.mark.parametrize(("share", "clipped"), [(0.01, True), (0.03, True), (0.09, True), (0.2, False)])
def test_a_bar_at_the_top_leaves_the_rest_its_levels(share, clipped):
    values = np.random.default_rng(0).integers(0, 4096, (200, 200)).astype(np.uint16)
    values[: int(200 * share)] = 65535
    scaled = scale(lambda: [values], 200, 200)
    assert scaled.outliers == clipped
    assert (len(np.unique(scaled.pixels)) > 250) == clipped


def test_a_bright_region_without_a_gap_below_it_stays():
    values = np.random.default_rng(0).integers(0, 65000, (200, 200)).astype(np.uint16)
    values[:6] = 65535
    assert not scale(lambda: [values], 200, 200).outliers
