import numpy as np
import pandas as pd
import pytest

from cxrnet.core.atomic import write_table
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import (
    growing_file,
    logits_of,
    make_predictions,
    probabilities_of,
    read_predictions,
    softmax,
)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_file_holds_the_same_table(make_table, tmp_path, suffix):
    table = make_table(classes=("None", "COVID 19", "NA"), n=30)
    table.loc[3, ["label", "patient_id", "split"]] = pd.NA
    write_table(table, tmp_path / f"new/predictions{suffix}")
    again = read_predictions(tmp_path / f"new/predictions{suffix}")
    pd.testing.assert_frame_equal(again, table)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [f"predictions{suffix}"]


def test_further_columns_are_kept(make_table, tmp_path):
    write_table(make_table(n=3).assign(weight=[40, 50, 60]), tmp_path / "p.csv")
    assert list(read_predictions(tmp_path / "p.csv")["weight"]) == [40, 50, 60]


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


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_goes_wrong_leaves_no_file_and_the_old_one_as_it_was(tmp_path, suffix):
    path = tmp_path / f"predictions.{suffix}"
    path.write_text("old")

    def stop() -> None:
        with growing_file(path) as add:
            add(table(0, 3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
