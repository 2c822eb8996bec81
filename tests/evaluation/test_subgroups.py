import numpy as np
import pandas as pd
import pytest

from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.subgroups import age_bands, evaluate_subgroups


@pytest.fixture
def table(make_table):
    rng = np.random.default_rng(0)
    return make_table(n=300).assign(
        source=rng.choice(["a", "b"], 300, p=[0.1, 0.9]),
        view=rng.choice(["PA", "AP", "AP Supine", None], 300),
        age=rng.choice(["5", "64.9", "080Y", "old"], 300),
    )


def test_metrics_are_those_of_the_part(table) -> None:
    rows, _ = evaluate_subgroups(table, evaluate, 20)
    part = table[table["view"] == "AP"]
    expected = evaluate(part)["per_class"]
    found = rows[(rows["attribute"] == "view") & (rows["group"] == "AP")].set_index("class")
    assert found.index.tolist() == list(expected)
    for name, row in found.iterrows():
        assert [row["n"], row["positives"]] == [len(part), (part["label"] == name).sum()]
        for metric in ("sensitivity", "specificity", "roc_auc"):
            assert row[metric] == expected[name][metric]


def test_groups_in_order_and_every_image_in_one_of_each_attribute(table) -> None:
    rows, _ = evaluate_subgroups(table, evaluate, 20)
    groups = rows.drop_duplicates(["attribute", "group"])
    assert (groups.groupby("attribute")["n"].sum() == 300).all()
    order = groups.groupby("attribute", sort=False)["group"].agg(list)
    assert order.index.tolist() == ["source", "view", "age"]
    assert order["source"] == ["b", "a"]
    assert order["view"][-1] == "unknown"
    assert order["age"] == ["0-17", "40-64", "65+", "unknown"]


def test_attributes_that_divide_nothing_are_left_out(make_table) -> None:
    rows, warnings = evaluate_subgroups(make_table().assign(sex=pd.NA), evaluate, 20)
    assert rows.empty
    assert rows.columns.tolist()[:5] == ["attribute", "group", "class", "n", "positives"]
    assert warnings == []


def test_small_groups_are_warned_of(make_table) -> None:
    labels = ["Covid"] * 30 + ["Normal"] * 25 + ["Covid"] * 40
    table = make_table(labels=labels, classes=("Covid", "Normal")).assign(sex=["F"] * 55 + ["M"] * 40)
    rows, warnings = evaluate_subgroups(table, evaluate, 20)
    assert warnings == ["sex M: only 0 images with Normal, 0 without Covid (fewer than 20): uncertain metrics."]
    men = rows[(rows["group"] == "M") & (rows["class"] == "Covid")].iloc[0]
    assert men["roc_auc"] == {"value": None, "n": 0, "reason": "every image is labelled Covid"}


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("0", "0-17"),
        ("17.9", "0-17"),
        ("18", "18-39"),
        ("39", "18-39"),
        ("40", "40-64"),
        ("64.9", "40-64"),
        ("65", "65+"),
        ("120", "65+"),
        ("058Y", "40-64"),
        (" 70 ", "65+"),
        ("121", "unknown"),
        ("-1", "unknown"),
        ("60s", "unknown"),
        ("011M", "unknown"),
        ("inf", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_ages_fall_into_bands(age, band) -> None:
    assert age_bands(pd.Series([age], dtype="string")).tolist() == [band]
