import numpy as np
import pandas as pd
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation import bootstrap as module
from cxrnet.evaluation.bootstrap import bootstrap, clusters_of, draw


def make_rows(labels: str, **columns) -> pd.DataFrame:
    return pd.DataFrame({"label": list(labels), "patient_id": pd.NA, **columns})


def all_drawn(clusters, resamples=300, seed=0):
    return np.concatenate(list(draw(clusters, resamples, seed)))


def test_without_patients_images_are_drawn():
    clusters = clusters_of(make_rows("aabbb"))
    assert clusters.kind == "image"
    assert clusters.of_row.tolist() == [0, 1, 2, 3, 4]
    assert clusters.stratum.tolist() == [0, 0, 1, 1, 1]


def test_duplicate_groups_are_drawn_where_patients_are_not_known():
    clusters = clusters_of(make_rows("aabb", group_id=["x", "x", None, None]))
    assert clusters.kind == "duplicate group"
    assert clusters.of_row.tolist() == [0, 0, 1, 2]


def test_patients_who_share_an_image_are_drawn_together():
    clusters = clusters_of(make_rows("aaaa", patient_id=["1", "1", "2", None], group_id=[None, "x", "x", None]))
    assert clusters.kind == "patient"
    assert clusters.of_row.tolist() == [0, 0, 0, 1]


def test_clusters_are_stratified_by_their_labels():
    patients = ["1", "1", "2", "2", "3", "3", "4", "5"]
    clusters = clusters_of(make_rows("abababaa", patient_id=patients))
    assert clusters.stratum.tolist() == [0, 0, 0, 1, 1]
    # The sets of labels that only one patient has.
    clusters = clusters_of(make_rows("abbbaa", patient_id=["1", "1", "2", "3", "4", "4"]))
    assert clusters.stratum.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("labels", "patients", "strata"),
    [
        ("abaabb", "112345", [0, 0, 0, 1, 1]),  # one patient with both labels: as rare as each other
        ("abaabbb", "1123456", [0, 0, 0, 1, 1, 1]),  # it is drawn with those of the rarer one
        ("acababcc", "11234567", [0, 0, 1, 0, 1, 2, 2]),
        ("caabbb", "123456", [0, 1, 1, 0, 0, 0]),  # a label that one patient has: with the largest stratum
        ("dcaabbb", "1234567", [0, 0, 1, 1, 0, 0, 0]),
        ("cccaabbb", "11123456", [0, 1, 1, 0, 0, 0]),
    ],
)
def test_no_patient_is_in_every_resample(labels, patients, strata):
    clusters = clusters_of(make_rows(labels, patient_id=list(patients)))
    assert clusters.stratum.tolist() == strata
    weights = all_drawn(clusters)
    assert (weights.min(axis=0) == 0).all()


def test_the_effective_number_of_patients():
    clusters = clusters_of(make_rows("aaaaabb", patient_id=["1", "1", "1", "2", "3", "4", "4"]))
    assert clusters.effective(np.ones(7, bool)) == pytest.approx(49 / (9 + 1 + 1 + 4))
    assert clusters.effective(np.arange(7) >= 3) == pytest.approx(16 / 6)
    assert clusters.effective(np.isin(np.arange(7), [0, 3, 5])) == 3  # one image of each
    assert clusters.effective(np.zeros(7, bool)) == 0
    assert clusters.cases(np.ones(7, bool), 1.0) == 4


def test_a_resample_holds_whole_patients_and_as_many_of_each_label():
    rows = make_rows("aaabbbb", patient_id=["1", "1", "2", "3", "4", "5", "5"])
    weights = all_drawn(clusters_of(rows))
    assert weights.shape == (300, 7)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 5] == weights[:, 6]).all()
    first_images = weights[:, [0, 2, 3, 4, 5]]
    assert (first_images[:, :2].sum(axis=1) == 2).all()
    assert (first_images[:, 2:].sum(axis=1) == 3).all()
    assert set(np.unique(weights)) == {0, 1, 2, 3}


def test_each_patient_is_drawn_once_on_average():
    weights = all_drawn(clusters_of(make_rows("a" * 20 + "b" * 5)), resamples=4000)
    assert weights.mean(axis=0) == pytest.approx(np.ones(25), abs=0.1)
    assert weights.var(axis=0) == pytest.approx(np.r_[np.full(20, 0.95), np.full(5, 0.8)], abs=0.12)


def test_a_seed_gives_the_same_resamples(monkeypatch):
    clusters = clusters_of(make_rows("aabbb"))
    first = all_drawn(clusters, seed=1)
    assert (first == all_drawn(clusters, seed=1)).all()
    assert (first != all_drawn(clusters, seed=2)).any()


def test_a_large_table_is_drawn_in_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 12)
    clusters = clusters_of(make_rows("aabbb"))
    assert [len(weights) for weights in draw(clusters, 5, 0)] == [2, 2, 1]
    counted = bootstrap(clusters, lambda weights: {"sum": weights.sum(axis=1)}, 101, 0)
    assert counted["sum"].tolist() == [5.0] * 101


@pytest.mark.parametrize("resamples", [99, -1, 200.0])
def test_too_few_resamples(resamples):
    with pytest.raises(CxrnetError, match=f"resamples: {resamples} won't do; give a whole number from 100 on, or 0"):
        bootstrap(clusters_of(make_rows("ab")), lambda weights: {"a": weights[:, 0]}, resamples, 0)
