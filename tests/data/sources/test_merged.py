import logging

import pandas as pd
import pytest

from cxrnet.data.manifest import make_manifest
from cxrnet.data.sources.merged import merged, relabel
from cxrnet.errors import CxrnetError


def table(source, counts, **columns):
    rows = [
        {"image_id": f"{label}{n}", "path": f"/{source}/{label}{n}.png", "label": label, "source": source} | columns
        for label, count in counts.items()
        for n in range(count)
    ]
    return make_manifest(pd.DataFrame(rows), source)


@pytest.fixture
def parts():
    one = table("one", {"covid": 4, "other": 2}, patient_id="7", group_id="g", finding="x")
    two = table("two", {"covid": 6, "Normal": 5}, patient_id="7")
    return {
        "a": {"manifest": one, "labels": {"covid": "sick"}},
        "b": {"manifest": lambda: two, "labels": {"covid": "sick", "Normal": "well"}},
    }


def test_ids_of_different_parts_do_not_collide(parts, caplog):
    with caplog.at_level(logging.INFO, "cxrnet"):
        manifest = merged(parts, None, 0)
    assert manifest["label"].value_counts().to_dict() == {"sick": 10, "well": 5}
    assert manifest["image_id"].is_unique
    assert {"a/covid0", "b/covid0", "b/Normal0"} <= set(manifest["image_id"])
    assert set(manifest["patient_id"]) == {"a/7", "b/7"}
    assert set(manifest["group_id"].dropna()) == {"a/g"}
    assert manifest["group_id"].isna().sum() == 11
    assert set(manifest["source"]) == {"one", "two"}
    assert manifest["finding"].notna().sum() == 4
    assert "merged: a: classes that labels doesn't name are left out: other 2" in caplog.text


def test_equal_numbers_are_drawn_by_the_seed_alone(parts):
    first = merged(parts, "equal", 1)
    assert first["label"].value_counts().to_dict() == {"sick": 5, "well": 5}
    turned = {name: parts[name] for name in ("b", "a")}
    turned["a"] = {**parts["a"], "manifest": parts["a"]["manifest"].iloc[::-1]}
    pd.testing.assert_series_equal(merged(turned, "equal", 1)["image_id"], first["image_id"])
    draws = {tuple(merged(parts, "equal", seed)["image_id"]) for seed in range(5)}
    assert len(draws) > 1
    assert set(merged(parts, 2, 1)["image_id"]) < set(first["image_id"])


@pytest.mark.parametrize(
    ("per_class", "message"),
    [
        *((each, f"{each} is no number; give one from 1 on, equal, or null") for each in (0, -1, 2.5, True, "all")),
        (6, "class 'well' has 5 images, 6 are to be drawn; give a smaller"),
    ],
)
def test_numbers_that_can_not_be_drawn(parts, per_class, message):
    with pytest.raises(CxrnetError, match=f"per_class: {message}"):
        merged(parts, per_class, 0)


def test_a_split_is_kept_only_where_all_parts_have_one(parts, caplog):
    for part in parts.values():
        read = part["manifest"]
        part["manifest"] = (read() if callable(read) else read).assign(split="train")
    assert set(merged(parts, None, 0)["split"]) == {"train"}
    parts["b"]["manifest"] = parts["b"]["manifest"].assign(split=pd.NA)
    with caplog.at_level(logging.INFO, "cxrnet"):
        assert merged(parts, None, 0)["split"].isna().all()
    assert "those of the others are dropped" in caplog.text


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"manifest": table("x", {"c": 1})}, "parts.a: holds manifest; give it manifest and labels"),
        ({"manifest": table("x", {"c": 1}), "labels": {}}, "parts.a.labels: names no class; give one or more"),
        (
            {"manifest": table("x", {"c": 1, "d": 1}), "labels": {"covid": "sick"}},
            "parts.a.labels: 'covid' is no class of this part; it has c, d",
        ),
    ],
)
def test_parts_that_can_not_be_used(parts, part, message):
    with pytest.raises(CxrnetError, match=message):
        merged(parts | {"a": part}, None, 0)
    with pytest.raises(CxrnetError, match="parts: nothing to merge"):
        merged({}, None, 0)


CLASSES = ("COVID", "Normal")


@pytest.mark.parametrize(
    ("own", "labels", "kept", "left_out"),
    [
        (
            ["Covid", "Normal", "Viral", "Covid", "Viral"],
            {"Covid": "COVID", "Viral": None},
            {"0000.png": "COVID", "0001.png": "Normal", "0003.png": "COVID"},
            {"Viral": 2},
        ),
        (["a", "b"], {"a": "Normal", "b": "Normal"}, {"0000.png": "Normal", "0001.png": "Normal"}, {}),
        (["a", "a"], {"a": None}, {}, {"a": 2}),
    ],
)
def test_labels_become_classes_and_what_has_none_is_left_out_and_counted(manifest_of, own, labels, kept, left_out):
    manifest = manifest_of(own)
    found, counted = relabel(manifest, CLASSES, labels, "classes.a")
    assert dict(zip(found["image_id"], found["label"], strict=True)) == kept
    assert found.index.tolist() == list(range(len(kept)))
    assert counted == left_out
    assert manifest["label"].tolist() == own


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, r"no class of the bundle \(COVID, Normal\) for the label covid, other; give classes\.x="),
        ({"covid": "COVID"}, r".* for the label other; give classes\.x={other: \.\.\.}, with a class or null"),
        ({"covid": "COVID", "other": None, "b": None}, "'b' is no label of the data, which are covid, other"),
        ({"covid": "Covid", "other": None}, "'Covid' is no class of the bundle, which are COVID, Normal"),
    ],
)
def test_labels_that_do_not_fit(manifest_of, labels, message):
    with pytest.raises(CxrnetError, match=rf"^classes\.x: {message}"):
        relabel(manifest_of(["covid", "other"]), CLASSES, labels, "classes.x")
