import pandas as pd
import pytest

from cxrnet.core.atomic import whole_file, write_table, write_text


def names(folder):
    return [file.name for file in folder.iterdir()]


def write_half(path, error):
    with whole_file(path) as partial:
        partial.write_text("half")
        raise error


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with whole_file(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("no room"), KeyboardInterrupt()], ids=["error", "stopped"])
@pytest.mark.parametrize("before", [["a.txt"], []], ids=["old file", "no file"])
def test_what_goes_wrong_in_the_middle_changes_nothing(tmp_path, before, error):
    for name in before:
        (tmp_path / name).write_text("old")
    with pytest.raises(type(error)):
        write_half(tmp_path / "a.txt", error)
    assert names(tmp_path) == before
    assert all((tmp_path / name).read_text() == "old" for name in before)


def test_nothing_is_left_where_the_name_is_taken_by_a_folder(tmp_path):
    (tmp_path / "a.txt" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"a\.txt"):
        write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_is_no_part_of_the_file(tmp_path):
    (tmp_path / "a.txt.partial").write_text("half of a much longer text")
    assert write_text(tmp_path / "a.txt", "new").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_the_name_says_how_a_table_is_written(tmp_path):
    table = pd.DataFrame({"id": ["007", "008"], "size": [1, 2]}, index=[5, 6])
    for name in ("new/a.csv", "new/a.parquet"):
        write_table(table, tmp_path / name)
    assert (tmp_path / "new/a.csv").read_text() == "id,size\n007,1\n008,2\n"
    again = pd.read_parquet(tmp_path / "new/a.parquet")
    assert again.to_dict("list") == table.to_dict("list")
    assert list(again.index) == [0, 1]
    assert sorted(names(tmp_path / "new")) == ["a.csv", "a.parquet"]
