import hashlib
from pathlib import Path

import pandas as pd
import pytest

from cxrnet.data.manifest import COLUMNS, digest, make_manifest, read_manifest, write_manifest
from cxrnet.errors import CxrnetError


def rows(**columns) -> pd.DataFrame:
    table = {"image_id": ["b", "a", "c"], "path": ["b.png", "a.png", "c.png"], "label": ["x", "y", "x"]}
    return pd.DataFrame(table | {"source": "s"} | columns)


def test_columns_order_and_types():
    table = rows(width=[1, None, 3], age=[60, 61, 62])
    manifest = make_manifest(table, "test")
    assert list(table.columns) == ["image_id", "path", "label", "source", "width", "age"]
    assert tuple(manifest.columns) == (*COLUMNS, "age")
    assert manifest["image_id"].tolist() == ["a", "b", "c"]
    assert manifest["age"].tolist() == [61, 60, 62]
    assert manifest["patient_id"].isna().all()
    assert str(manifest["width"].dtype) == "Int64"
    assert all(str(manifest[name].dtype) == "string" for name in ("label", "split", "group_id"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows().iloc[:0], "test: no images found"),
        (rows().drop(columns=["label", "source"]), "test: column label, source missing"),
        (rows(label=["x", None, "x"]), "test: column label is empty in 1 of 3 rows"),
        (rows(path=["", "", "c.png"]), "test: column path is empty in 2 of 3 rows"),
        (rows(image_id=["a", "a", "c"]), "test: image_id 'a' stands in more than one row .1 ids"),
        (rows(split=["train", "dev", None]), "test: split 'dev' is not known; use train, val, test"),
        (rows(label=["COVID", "Covid", "x"]), "test: classes 'COVID' and 'Covid', which differ in case"),
        (rows(width=["1e400", "2", "3"]), "test: column width holds something else than whole numbers"),
        (rows(height=[float("inf"), 2, 3]), "test: column height holds something else than whole numbers"),
        (rows(width=["wide", "2", "3"]), "test: column width holds something else than whole numbers"),
        (rows(path=["a\0.png", "b", "c"]), r"test: column path holds 'a\\x00.png', no name of a file"),
        (rows(mask_path=[None, "a\0", None]), "test: column mask_path holds .*, no name of a file"),
        (
            rows(image_id=pd.Series(["a\udcf3", "b", "c"], dtype=object)),
            r"test: column image_id holds 'a\\udcf3', which is not",
        ),
    ],
)
def test_bad_tables(table, message):
    with pytest.raises(CxrnetError, match=rf"^{message}[^\n]*$"):
        make_manifest(table, "test")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_round_trip_keeps_the_table_and_the_digest(tmp_path, suffix):
    path = tmp_path / "sub" / f"manifest{suffix}"
    table = rows(
        path=[str(tmp_path / "sub" / "x y" / "b.png"), "/elsewhere/a.png", str(tmp_path / "c.png")],
        split=["train", None, "test"],
        patient_id=["007", "313b", None],
        width=[10, None, 30],
    )
    manifest = make_manifest(table, "test")
    write_manifest(manifest, path)
    again = read_manifest(path)
    pd.testing.assert_frame_equal(again, manifest)
    assert digest(again) == digest(manifest)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    moved = path.parent.rename(tmp_path / "moved") / path.name
    assert read_manifest(moved)["path"].tolist()[1] == str(tmp_path / "moved" / "x y" / "b.png")


@pytest.mark.parametrize(
    "path",
    [
        *("a/b.png", "/a/b.png", "./a.png", "a//b", "/a//b", "a/./b", "a/"),
        *("a/.", "/", "//s/b", "..", "a/../b", ".h/..i/j."),
    ],
)
def test_a_path_is_read_as_pathlib_joins_it(tmp_path, path):
    rows(path=["x.png", path, "y.png"], mask_path=[None, "", path]).to_csv(tmp_path / "m.csv", index=False)
    manifest = read_manifest(tmp_path / "m.csv").set_index("image_id")
    assert manifest.loc[["b", "a", "c"], "path"].tolist() == [str(tmp_path / name) for name in ("x.png", path, "y.png")]
    assert manifest["mask_path"].isna().tolist() == [True, True, False]
    assert manifest.loc["c", "mask_path"] == str(tmp_path / path)


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("{0}/a/b.png", "a/b.png"),
        ("{0}//a/./b.png", "a/b.png"),
        ("{0}x/b.png", "{0}x/b.png"),
        ("/else/b.png", "/else/b.png"),
        ("a//b.png", "a//b.png"),
    ],
)
def test_a_path_below_the_folder_is_stored_relative(tmp_path, path, stored):
    write_manifest(make_manifest(rows(path=[path.format(tmp_path)] * 3), "t"), tmp_path / "m.csv")
    assert pd.read_csv(tmp_path / "m.csv")["path"].tolist() == [stored.format(tmp_path)] * 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "is not a file"),
        ("empty.csv", b"", "cannot be read as a table"),
        ("picture.csv", b"\x89PNG\r\n\x1a\n\xff\xfe", "cannot be read as a table"),
        ("broken.parquet", b"PAR1 no", "cannot be read as a table"),
        ("table.xlsx", b"PK", "cannot be read as a table"),
        ("columns.csv", b"a,b\n1,2\n", "column image_id, path, label, source missing"),
        ("header.csv", b"image_id,path,label,source\n", "no images found"),
    ],
)
def test_files_that_are_no_manifest(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CxrnetError, match=message) as caught:
        read_manifest(tmp_path / name)
    assert str(Path(tmp_path) / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", ["None", "NA", "null", "nan"])
def test_a_class_may_have_any_name(tmp_path, label):
    manifest = make_manifest(rows(label=[label, "y", "x"]), "test")
    write_manifest(manifest, tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv")["label"].tolist() == ["y", label, "x"]


def test_digest_tells_data_not_places():
    manifest = make_manifest(rows(sha256=["1", "2", "3"]), "test")
    same = make_manifest(rows(sha256=["1", "2", "3"], path=["/x/1", "/x/2", "/x/3"]).iloc[::-1], "test")
    assert digest(manifest) == digest(same)
    for column, value in {"label": "z", "split": "test", "patient_id": "p", "sha256": "9"}.items():
        assert digest(manifest.assign(**{column: value})) != digest(manifest)


def test_the_digest_is_that_of_the_csv_also_of_a_long_table_and_of_cells_with_commas():
    names = pd.Series([f'{i}, "{i % 7}"' if i % 3 else f"{i}" for i in range(100_003)])
    manifest = make_manifest(pd.DataFrame({"image_id": names, "path": "p", "label": names, "source": "s"}), "test")
    columns = ["image_id", "label", "split", "patient_id", "sha256"]
    text = manifest[columns].to_csv(index=False, lineterminator="\n")
    assert digest(manifest) == hashlib.sha256(text.encode()).hexdigest()
