import numpy as np
import pandas as pd
import pytest

from cxrnet.core.atomic import write_table
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import (
    ROW_COLUMNS,
    check_predictions,
    classes_of,
    growing_file,
    logits_of,
    make_predictions,
    probabilities_of,
    read_predictions,
    softmax,
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


def test_other_tables_are_refused(make_table) -> None:
    mixed = pd.concat([make_table(n=5), make_table(n=20, split="val"), make_table(n=3, split="train")])
    with pytest.raises(CxrnetError, match=r"temperature: 8 of 28 images are of split test, train; .* give only those"):
        validation_codes(mixed, "temperature")
    with pytest.raises(CxrnetError, match="operating_points: there are no validation images"):
        validation_codes(make_table().iloc[:0], "operating_points")
    with pytest.raises(CxrnetError, match="20 of 20 images have no label"):
        validation_codes(make_table(n=20, split="val").assign(label=pd.NA), "operating_points")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_file_holds_the_same_table(make_table, tmp_path, suffix):
    table = make_table(classes=("None", "COVID 19", "NA"), n=30)
    table.loc[3, ["label", "patient_id", "split"]] = pd.NA
    write_table(table, tmp_path / f"new/predictions{suffix}")
    again = read_predictions(tmp_path / f"new/predictions{suffix}")
    pd.testing.assert_frame_equal(again, table)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [f"predictions{suffix}"]


def test_a_word_for_not_known_is_no_patient(make_table, tmp_path):
    table = make_table()
    words = ["unknown", "nan", " ", "p"]
    write_table(table.assign(patient_id=[words[i % 4] for i in range(len(table))]), tmp_path / "p.csv")
    assert set(read_predictions(tmp_path / "p.csv")["patient_id"].dropna()) == {"p"}


def test_a_bad_table_is_told_with_its_file(make_table, tmp_path):
    make_table(n=5).assign(label="COVID").to_parquet(tmp_path / "p.parquet")
    with pytest.raises(CxrnetError, match=r"p\.parquet: label 'COVID' is not one of the classes"):
        read_predictions(tmp_path / "p.parquet")


@pytest.mark.parametrize("column", ["prob_Covid", "logit_Covid"])
def test_text_is_no_number(make_table, tmp_path, column):
    make_table(n=5).assign(**{column: "high"}).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(CxrnetError, match=f"p.csv: column {column} holds 'high' .5 of 5 rows., which is no number"):
        read_predictions(tmp_path / "p.csv")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_another_program_need_not_know_our_columns(make_table, tmp_path, suffix):
    table = make_table(n=6)
    bare = table[["image_id", "label", "predicted", *(name for name in table if name.startswith("prob_"))]].copy()
    bare.loc[0, ["prob_Viral Pneumonia", "prob_Covid", "prob_Normal"]] = [0.0, 1.0, 0.0]
    write_table(bare, tmp_path / f"p{suffix}")
    again = read_predictions(tmp_path / f"p{suffix}")
    np.testing.assert_allclose(softmax(logits_of(again)), probabilities_of(bare), atol=1e-6)
    assert again[["path", "split", "source", "patient_id"]].isna().all(axis=None)
    assert evaluate(again)["accuracy"] == evaluate(bare)["accuracy"]


def test_a_file_that_is_no_table(tmp_path):
    with pytest.raises(CxrnetError, match="is not a file"):
        read_predictions(tmp_path / "none.parquet")
    (tmp_path / "p.parquet").write_text("not a table")
    with pytest.raises(CxrnetError, match="cannot be read as a table"):
        read_predictions(tmp_path / "p.parquet")
    (tmp_path / "p.csv").write_text("")
    with pytest.raises(CxrnetError, match="cannot be read as a table"):
        read_predictions(tmp_path / "p.csv")


def table(start: int, count: int) -> pd.DataFrame:
    ids = [f"{i}.png" for i in range(start, start + count)]
    rows = pd.DataFrame(
        {"image_id": ids, "path": ids, "label": "a", "split": pd.NA, "source": "s", "patient_id": pd.NA}
    )
    logits = np.random.default_rng(start).normal(size=(count, 2)).astype(np.float32)
    return make_predictions(rows, ("a", "b"), logits)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_parts_make_one_table(tmp_path, suffix):
    path = tmp_path / f"predictions.{suffix}"
    with growing_file(path) as add:
        add(table(0, 3))
        assert not path.exists()
        add(table(3, 2))
    expected = pd.concat([table(0, 3), table(3, 2)], ignore_index=True)
    pd.testing.assert_frame_equal(read_predictions(path), expected, check_dtype=suffix == "parquet")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
