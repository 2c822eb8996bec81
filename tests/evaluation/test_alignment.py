import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.comparison import align
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import check_predictions, classes_of

CLASSES = ("Viral Pneumonia", "Covid", "Normal")


@pytest.fixture
def table(make_table):
    return make_table(n=12)


def _message(tables) -> str:
    with pytest.raises(CxrnetError) as error:
        align(tables)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_images_and_classes_are_put_into_one_order(table, make_table):
    labels = [str(label) for label in table["label"]]
    turned = make_table(labels=labels, classes=CLASSES[::-1], seed=1).sample(frac=1, random_state=0)
    aligned = align({"a": table, "b": turned})
    assert list(aligned["b"]["image_id"]) == list(table["image_id"])
    assert list(aligned["b"]["label"]) == labels
    assert classes_of(aligned["b"]) == list(CLASSES)
    check_predictions(aligned["b"], "aligned")
    before, after = evaluate(turned)["per_class"], evaluate(aligned["b"])["per_class"]
    for name in CLASSES:
        assert {key: metric["value"] for key, metric in after[name].items()} == pytest.approx(
            {key: metric["value"] for key, metric in before[name].items()}, abs=1e-12
        )


def test_other_images_are_refused(table):
    less, other = table.iloc[:-3], table.iloc[1:].assign(image_id=[f"x{i}" for i in range(11)])
    assert _message({"a": table, "b": less}) == (
        "runs: 'b' and 'a' are tested on different images: 3 of the 12 images of 'a' are not in 'b' "
        "(as 'test/0009.png'); compare runs with the same data and the same split"
    )
    assert "3 of the 12 images of 'b' are not in 'a'" in _message({"a": less, "b": table})
    message = _message({"a": table, "b": other})
    assert "12 of the 12 images of 'a' are not in 'b' (as 'test/0000.png')" in message
    assert "11 of the 11 images of 'b' are not in 'a' (as 'x0')" in message


def test_other_labels_are_refused(table):
    changed = table.copy()
    changed.loc[[2, 5], "label"] = ["Covid" if label != "Covid" else "Normal" for label in table["label"][[2, 5]]]
    mine, theirs = changed["label"][2], table["label"][2]
    assert _message({"a": table, "b": changed}) == (
        f"runs: 'b' and 'a' give 2 of 12 images different labels ('test/0002.png': {mine}, {theirs}); "
        "compare runs with the same labels"
    )
    missing = table.copy()
    missing.loc[4, "label"] = None
    assert f"('test/0004.png': none, {table['label'][4]})" in _message({"a": table, "b": missing})


def test_other_classes_are_refused(table, make_table):
    message = _message({"a": table, "b": make_table(n=12, classes=("Covid", "Normal"))})
    assert message.startswith("runs: 'b' has the classes Covid, Normal, 'a' has Viral Pneumonia, Covid, Normal;")


def test_one_run_is_refused(table):
    assert _message({"a": table}) == "runs: 1 given; a comparison needs at least two, tested on the same images"
