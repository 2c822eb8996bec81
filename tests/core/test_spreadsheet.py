import csv
import io

import numpy as np
import pandas as pd
import pytest

from cxrnet.core.spreadsheet import as_it_was, to_csv
from cxrnet.data.manifest import make_manifest, read_manifest, write_manifest
from cxrnet.data.sources.tables import read_table
from cxrnet.evaluation.predictions import growing_file, make_predictions, read_predictions

FORMULAS = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "\r=1", "\n=1", "'=1+1", "''-x", "-", "--1",
    "\uff1d1+1", '=HYPERLINK("http://x.org")', "-2020-01-01", "-inf", "+x.png",
]  # fmt: skip
TEXTS = [
    "a", "", "a=1", "'quoted'", "'", "it's", " =1", "-1", "+1.5", "-.5", "-1e-05", "1-1", "a\r=1", "Lungen-Trübung",
    "a,b",
]  # fmt: skip


def written(table: pd.DataFrame) -> list[list[str]]:
    return list(csv.reader(io.StringIO(to_csv(table), newline="")))


@pytest.mark.parametrize("kind", [object, "string", "str", "category"])
def test_no_text_begins_as_a_formula_and_all_of_it_comes_back(kind):
    column = pd.Series([*FORMULAS, *TEXTS], name="=name").astype(kind)
    header, *cells = written(column.to_frame())
    assert header == ["'=name"]
    assert [cell[0] for cell in cells if cell and cell[0]] == [f"'{text}" for text in FORMULAS] + [
        text for text in TEXTS if text
    ]
    text = to_csv(column.to_frame())
    read = pd.read_csv(io.StringIO(text, newline=""), dtype=str, keep_default_na=False, skip_blank_lines=False)
    again = as_it_was(read)
    assert again.columns.tolist() == ["=name"]
    assert again["=name"].tolist() == [*FORMULAS, *TEXTS]
    assert again.dtypes.tolist() == read.dtypes.tolist()


def test_numbers_stay_numbers():
    numbers = {
        "float": [-0.5, np.nan, -np.inf],
        "int": [-1, 2, -3],
        "Int64": pd.array([-1, None, 3], "Int64"),
        "bool": [True, False, True],
        "mixed": pd.Series([-0.5, "-x", None], dtype=object),
    }
    table = pd.DataFrame(numbers)
    expected = table.assign(mixed=pd.Series([-0.5, "'-x", None], dtype=object)).to_csv(index=False)
    assert to_csv(table) == expected
    assert table["mixed"].tolist() == [-0.5, "-x", None]  # the table itself is left as it was


def test_a_manifest_comes_back(tmp_path):
    rows = {"image_id": FORMULAS, "path": [f"/in/{place}.png" for place in range(len(FORMULAS))], "label": "-"}
    manifest = make_manifest(pd.DataFrame({**rows, "source": "=s", "=more": FORMULAS, "offset": "-0.5"}), "test")
    for name in ("manifest.csv", "manifest.parquet"):
        write_manifest(manifest, tmp_path / name)
        again = read_manifest(tmp_path / name)
        assert again.astype(object).equals(manifest.astype(object))
    assert "'=1+1" in (tmp_path / "manifest.csv").read_text(encoding="utf-8")
    read = read_table(tmp_path / "manifest.csv")  # as data=manifest reads it
    assert read["image_id"].tolist() == manifest["image_id"].tolist()
    assert read["label"].eq("-").all()


def test_predictions_come_back(tmp_path):
    n = len(FORMULAS)
    rows = {"image_id": FORMULAS, "path": [f"{name}.png" for name in FORMULAS], "label": "=pos", "split": "test"}
    rows = pd.DataFrame({**rows, "source": "@s", "patient_id": FORMULAS})
    logits = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    predictions = make_predictions(rows, ["-neg", "=pos"], logits)
    with growing_file(tmp_path / "predictions.csv") as add:
        for start in range(0, n, 5):
            add(predictions.iloc[start : start + 5])
    again = read_predictions(tmp_path / "predictions.csv")
    for name in ("image_id", "path", "label", "source", "predicted"):
        assert again[name].tolist() == predictions[name].tolist(), name
    assert np.array_equal(again["logit_=pos"], predictions["logit_=pos"])
    assert again["prob_-neg"].tolist() == pytest.approx(predictions["prob_-neg"].tolist(), abs=0)
