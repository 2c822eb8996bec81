import numpy as np
import pandas as pd
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import (
    ROW_COLUMNS,
    check_predictions,
    classes_of,
    label_codes,
    logits_of,
    make_predictions,
    probabilities_of,
    validation_codes,
)


def test_table_holds_logits_softmax_and_prediction(make_table):
    table = make_table(n=2, labels=["Covid", "Normal"])
    assert list(table.columns) == [
        *ROW_COLUMNS,
        *(f"{kind}_{name}" for kind in ("logit", "prob") for name in ("Viral Pneumonia", "Covid", "Normal")),
        "predicted",
    ]
    assert classes_of(table) == ["Viral Pneumonia", "Covid", "Normal"]
    logits = logits_of(table)
    assert logits.dtype == np.float32
    expected = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities_of(table), expected, rtol=1e-12)
    assert list(table["predicted"]) == [classes_of(table)[i] for i in logits.argmax(axis=1)]


def test_large_logits_do_not_overflow(make_table):
    rows = make_table(n=1, labels=["Covid"])
    table = make_predictions(rows, ("Covid", "Normal"), np.array([[3e4, -3e4]], dtype=np.float32))
    assert probabilities_of(table).tolist() == [[1.0, 0.0]]


def test_what_a_bootstrap_and_subgroups_need_comes_along_where_the_data_have_it(make_table):
    rows = make_table(n=3)[list(ROW_COLUMNS)].assign(
        label=["a", "b", "a"], sex=["F", None, "M"], age=[40, 50, 60], view=pd.NA, finding="x"
    )
    table = make_predictions(rows, ("a", "b"), np.zeros((3, 2), np.float32))
    assert table["sex"].fillna("unknown").tolist() == ["F", "unknown", "M"]
    assert table["age"].tolist() == ["40", "50", "60"]
    assert not {"view", "group_id", "finding"} & set(table.columns)


def test_diverged_training_is_named(make_table):
    rows = make_table(n=2)
    with pytest.raises(CxrnetError, match="the training diverged"):
        make_predictions(rows, ("Viral Pneumonia", "Covid", "Normal"), np.full((2, 3), np.nan, dtype=np.float32))


def _broken(table, how):
    match how:
        case "image_id" | "label" | "predicted" as column:
            return table.drop(columns=[column])
        case "logits":
            return table.drop(columns=["logit_Covid"])
        case "classes":
            return table.drop(columns=[name for name in table if name.startswith("prob_")])
        case "duplicate":
            return pd.concat([table, table.iloc[[0]]])
        case "no id":
            return table.assign(image_id=table["image_id"].mask(table.index == 2))
        case "sum":
            return table.assign(prob_Covid=table["prob_Covid"] + 0.01)
        case "nan":
            return table.assign(prob_Covid=np.nan)
        case "negative":
            return table.assign(prob_Covid=-0.5, prob_Normal=0.5, **{"prob_Viral Pneumonia": 1.0})
        case "empty logit":
            return table.assign(logit_Covid=table["logit_Covid"].mask(table.index == 2))
        case "unknown label":
            return table.assign(label="COVID")
        case "unknown class":
            return table.assign(predicted="COVID")
        case "no prediction":
            return table.assign(predicted=pd.NA)
    raise ValueError(how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("image_id", "column image_id missing; add a name for each image"),
        ("label", "column label missing; add the class of each image, empty where the truth is not known"),
        ("predicted", "column predicted missing; add the class that was predicted"),
        ("logits", "column logit_Covid missing; give the logits of all 3 classes, or of none"),
        ("empty logit", "a logit is empty in 1 of 5 rows"),
        ("classes", "0 prob_<class> columns"),
        ("duplicate", "image_id 'test/0000.png' stands in more than one row"),
        ("no id", "image_id is empty in 1 of 5 rows"),
        ("sum", r"image 'test/0000.png' are not a distribution .*sum 1.01; 5 of 5 rows"),
        ("nan", r"sum nan; 5 of 5 rows.*nan: a cell is empty\)$"),
        ("negative", "smallest -0.5"),
        ("unknown label", "label 'COVID' is not one of the classes Viral Pneumonia, Covid, Normal"),
        ("unknown class", "predicted 'COVID' is not one of the classes"),
        ("no prediction", "column predicted is empty in 5 of 5 rows"),
    ],
)
def test_a_bad_table_is_one_clear_line(make_table, how, message):
    with pytest.raises(CxrnetError, match=message) as caught:
        check_predictions(_broken(make_table(n=5), how), "theirs.csv")
    assert str(caught.value).startswith("theirs.csv: ")
    assert "\n" not in str(caught.value)


def test_validation_images_and_a_table_without_splits_are_taken(make_table) -> None:
    for split in ("val", pd.NA):
        table = make_table().assign(split=pd.array([split] * 60, dtype="string"))
        assert (validation_codes(table, "temperature") == label_codes(table)).all()


def test_other_tables_are_refused(make_table) -> None:
    mixed = pd.concat([make_table(n=5), make_table(n=20, split="val"), make_table(n=3, split="train")])
    with pytest.raises(CxrnetError, match=r"temperature: 8 of 28 images are of split test, train; .* give only those"):
        validation_codes(mixed, "temperature")
    with pytest.raises(CxrnetError, match="operating_points: there are no validation images"):
        validation_codes(make_table().iloc[:0], "operating_points")
    with pytest.raises(CxrnetError, match="20 of 20 images have no label"):
        validation_codes(make_table(n=20, split="val").assign(label=pd.NA), "operating_points")
