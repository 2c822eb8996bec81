import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from cxrnet.data.duplicates.search import (
    grey_ranks,
    grey_values,
    hash_distance,
    hashes,
    pairs_that_may_reach,
    project,
)


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    """Pictures that look like one of ten, more or less, and some that are constant, (700, 64, 64) uint8."""
    rng = np.random.default_rng(0)
    ten = gaussian_filter(rng.normal(size=(10, 64, 64)), (0, 8, 8)) * 1000
    mixed = ten[rng.integers(0, 10, 690)] + rng.uniform(0, 30, (690, 1, 1)) * rng.normal(size=(690, 64, 64))
    constant = np.full((10, 64, 64), 7)
    return np.concatenate([np.clip(mixed + 128, 0, 255), constant]).astype(np.uint8)


def test_ranks_are_those_of_scipy_and_correlate_as_spearman_says(small):
    halves = small.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4)).reshape(len(small), -1)
    ranks = grey_ranks(small)
    expected = np.corrcoef(rankdata(halves[:20], axis=1))
    np.testing.assert_allclose(ranks[:20] @ ranks[:20].T, expected, atol=1e-5)
    assert not ranks[-10:].any()


def test_values_correlate_as_pearson_says(small):
    values = grey_values(small)
    np.testing.assert_allclose(values[:20] @ values[:20].T, np.corrcoef(small[:20].reshape(20, -1)), atol=1e-5)
    assert not values[-10:].any()


@pytest.mark.parametrize("vectors", [grey_values, grey_ranks])
def test_the_projection_never_lies_below_the_correlation(small, vectors):
    rows = vectors(small)
    projected = project(rows)
    assert projected.shape == (len(small), 49)
    assert (projected @ projected.T >= rows @ rows.T - 1e-4).all()


@pytest.mark.parametrize("limit", [0.985, 0.9, 0.5])
def test_no_pair_that_reaches_the_limit_is_lost_and_none_comes_twice(small, limit):
    rows = grey_values(small)
    found = [
        tuple(sorted(pair)) for a, b in pairs_that_may_reach(limit, project(rows)) for pair in zip(a, b, strict=True)
    ]
    reaching = set(zip(*np.nonzero(np.triu(rows @ rows.T >= limit, k=1)), strict=True))
    assert len(reaching) > 100
    assert reaching <= set(found)
    assert len(found) == len(set(found))
    constant = range(len(small) - 10, len(small))
    assert not any(a in constant or b in constant for a, b in found)


@pytest.mark.parametrize("limit", [0.985, 0.9])
def test_pairs_far_apart_in_the_table_are_found_too(limit):
    vectors = np.random.default_rng(0).normal(size=(3000, 49)) * 0.5 ** np.arange(49)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = {tuple(sorted(pair)) for a, b in pairs_that_may_reach(limit, vectors) for pair in zip(a, b, strict=True)}
    assert found >= set(zip(*np.nonzero(np.triu(vectors @ vectors.T >= limit, k=1)), strict=True))


def test_hash_distance_is_that_of_the_nearer_hash():
    a = np.array([[0b1111, 0], [0, 0]], np.uint64)
    b = np.array([[0, 0b11], [2**64 - 1, 2**63]], np.uint64)
    assert hash_distance(a, b).tolist() == [2, 1]


def test_hashes_do_not_depend_on_what_else_is_hashed(small):
    alone = np.concatenate([hashes(image[None]) for image in small[::20]])
    assert np.array_equal(hashes(small)[::20], alone)


def test_a_picture_has_the_hashes_of_the_same_picture_brighter(small):
    dim = small[:50] // 4 * 2
    brighter = (dim + 60).astype(np.uint8)
    assert (hash_distance(hashes(dim), hashes(brighter)) == 0).all()
    assert hash_distance(hashes(dim[:1]), hashes(255 - dim[:1])) > 30
