"""Maps against regions: by hand, and against what says nothing."""

import numpy as np
import pandas as pd
import pytest

from cxrnet.evaluation.attribution import agreement, energy, inside_table, pointing, random_maps
from cxrnet.evaluation.audit import Sampling

SAMPLING = Sampling(200, 0, 0.95)


@pytest.fixture
def region() -> np.ndarray:
    marked = np.zeros((24, 16, 16), bool)
    marked[:, 4:12, 4:12] = True
    return marked


def rows(n: int) -> pd.DataFrame:
    return pd.DataFrame({"label": ["a", "b"] * (n // 2), "patient_id": [f"p{row // 2}" for row in range(n)]})


def test_energy_and_pointing_by_hand():
    maps = np.zeros((3, 2, 2))
    maps[0] = [[1, 0.5], [0.5, 0]]
    maps[1] = [[0, 0.25], [0.75, 0]]
    region = np.zeros((3, 2, 2), bool)
    region[:, 0] = True
    assert energy(maps, region)[:2].tolist() == [0.75, 0.25]
    assert pointing(maps, region)[:2].tolist() == [1.0, 0.0]
    assert np.isnan(energy(maps, region)[2])  # empty
    assert np.isnan(pointing(maps, region)[2])


def test_a_map_that_knows_the_region_exceeds_its_area_and_a_random_one_does_not(region):
    knowing = np.where(region, 0.9, 0.1) + np.random.default_rng(0).random(region.shape) / 10
    maps = {"knows": knowing, "random map": random_maps(region.shape, 0)}
    table = inside_table(rows(24), maps, {"lungs": region}, SAMPLING).set_index(["map", "measure"])
    assert (table["area"] == 0.25).all()
    for measure in ("energy", "pointing"):
        assert table.loc[("knows", measure), "value"] > 0.6
    assert table.loc[("knows", "energy"), "excess_low"] > 0
    assert table.loc[("random map", "energy"), "excess_low"] < 0 < table.loc[("random map", "energy"), "excess_high"]


def test_images_without_the_region_or_with_an_empty_map_do_not_count(region):
    region[:4] = False
    maps = np.where(region, 1.0, 0.0) + 0.1
    maps[4] = 0
    table = inside_table(rows(24), {"map": maps}, {"lesion": region, "nowhere": np.zeros_like(region)}, SAMPLING)
    assert set(table["region"]) == {"lesion"}
    assert set(table["n"]) == {19}
    assert set(table["empty"]) == {1}


def test_maps_agree_by_rank():
    random = np.random.default_rng(0)
    maps = random.random((3, 12, 12))
    others = np.stack([maps[0] ** 3, random.random((12, 12)), np.zeros((12, 12))])
    found = agreement(maps, others)
    assert found[0] == pytest.approx(1)
    assert abs(found[1]) < 0.3
    assert np.isnan(found[2])
