import pandas as pd
import pytest

from cxrnet.data.manifest import make_manifest, write_manifest
from cxrnet.data.sources.tables import read_table
from cxrnet.errors import CxrnetError


def write(path, *lines, encoding="utf-8"):
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def test_path_and_label_are_all_that_a_table_needs(tmp_path):
    file = write(
        tmp_path / "north.csv", "path,label", "../x/1.png,Normal", "b/2.png,COVID", f"{tmp_path}/c/3.png,COVID"
    )
    manifest = read_table(file).set_index("image_id")
    assert manifest["path"].to_dict() == {
        "../x/1.png": str(tmp_path / "../x/1.png"),
        "b/2.png": str(tmp_path / "b/2.png"),
        "c/3.png": str(tmp_path / "c/3.png"),
    }
    assert manifest["label"].tolist() == ["Normal", "COVID", "COVID"]
    assert set(manifest["source"]) == {"north"}
    assert manifest["split"].isna().all()


@pytest.mark.parametrize(
    ("separator", "name", "said"),
    [
        (",", "t.csv", ""),
        (",", "t.CSV", ""),
        (";", "t.csv", "semicolons"),
        ("|", "t.txt", "bars"),
        ("\t", "t.tsv", ""),
        ("\t", "t.csv", "tabs"),
        (",", "t.tsv", "commas"),
        (", ", "t.csv", ""),
    ],
)
def test_the_separator_is_found_out(tmp_path, caplog, separator, name, said):
    lines = [("path", "label", "source"), ('"a, b;|.png"', "Normal", "x"), ("c.png", "COVID", "x")]
    manifest = read_table(write(tmp_path / name, *map(separator.join, lines)))
    assert manifest["path"].tolist() == [str(tmp_path / "a, b;|.png"), str(tmp_path / "c.png")]
    assert manifest["label"].tolist() == ["Normal", "COVID"]
    assert (said in caplog.text) if said else not caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_encodings(tmp_path, caplog, encoding):
    table = read_table(
        write(tmp_path / "t.csv", "path,label", "1.png,Lungenentzündung", "2.png,gesund", encoding=encoding)
    )
    assert table["label"].tolist() == ["Lungenentzündung", "gesund"]
    assert ("is not UTF-8" in caplog.text) == (encoding == "latin-1")


def test_names_of_columns_in_any_spelling_and_more_columns(tmp_path, caplog):
    file = write(tmp_path / "t.csv", ' Path,"Label",Patient_ID,Age ', "1.png,a,7,60", "2.png,b,7 ,61")
    manifest = read_table(file)
    assert manifest["patient_id"].tolist() == ["7", "7"]
    assert manifest["Age"].tolist() == ["60", "61"]
    assert "columns are read under other names: ' Path' as path, 'Label' as label" in caplog.text


def test_splits_by_their_usual_names(tmp_path, caplog):
    names = ["Train ", "TRAIN", "training", "validation", "Test"]
    file = write(tmp_path / "t.csv", "path,label,split", *[f"{i}.png,a,{name}" for i, name in enumerate(names)])
    assert read_table(file)["split"].tolist() == ["train", "train", "train", "val", "test"]
    assert "'validation' is val" in caplog.text


def test_spaces_around_all_labels_of_a_class_are_left_out(tmp_path, caplog):
    assert read_table(write(tmp_path / "t.csv", "path,label", "1.png,COVID ", "2.png,Normal"))["label"].tolist() == [
        "COVID", "Normal",
    ]  # fmt: skip
    assert "spaces around 1 labels are left out" in caplog.text


def test_an_excel_sheet(tmp_path):
    pd.DataFrame({"path": ["1.png", "2.png"], "label": [0, 1]}).to_excel(tmp_path / "t.xlsx", index=False)
    assert read_table(tmp_path / "t.xlsx")["label"].tolist() == ["0", "1"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_was_written_here_is_read_as_it_was(tmp_path, caplog, suffix):
    rows = {"image_id": ["a", "b"], "path": [str(tmp_path / "a.png"), "/b.png"], "label": ["1", "NA"], "source": "s"}
    manifest = make_manifest(pd.DataFrame(rows), "test")
    write_manifest(manifest, tmp_path / f"m{suffix}")
    pd.testing.assert_frame_equal(read_table(tmp_path / f"m{suffix}"), manifest)
    assert not caplog.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label", "1.png,COVID", "2.png,COVID "], "classes 'COVID' and 'COVID ', which differ in case, spaces"),
        (["path,label", "1.png,covid", "2.png,COVID"], "classes 'COVID' and 'covid', which differ in case, spaces"),
        (["filename,class", "1.png,a"], "no column path and no column label; its columns are filename, class"),
        (["image,label", "1.png,a"], "no column path; its columns are image, label"),
        (["path", "1.png"], "no column label"),
        (["path,label,Label", "1.png,a,b"], "several columns 'label'"),
        (["path,label"], "has no rows"),
        ([""], "is empty"),
        (["path,label", "1.png,a", "1.png,b"], "names the file '1.png' in more than one row"),
        (["path,label", "a,1.png,a"], "has rows with more cells than its header"),
        (["path,label", "1.png,a", "b,1.png,a"], "cannot be read as a table|has rows with more cells"),
        (["path,label", "1.png,", "2.png,a"], "column label is empty in 1 of 2 rows"),
        (["path,label,split", "1.png,a,fold 1"], "split 'fold 1' is not known"),
    ],
)
def test_tables_that_can_not_be_read(tmp_path, lines, message):
    with pytest.raises(CxrnetError, match=rf"^[^\n]*{tmp_path}[^\n]*({message})[^\n]*$"):
        read_table(write(tmp_path / "t.csv", *lines))


@pytest.mark.parametrize(("name", "message"), [("t.xml", "give .csv, .tsv"), ("gone.csv", "is not a file")])
def test_files_that_are_no_tables(tmp_path, name, message):
    (tmp_path / "t.xml").write_text("<a/>")
    with pytest.raises(CxrnetError, match=message):
        read_table(tmp_path / name)
