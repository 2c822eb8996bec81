import pytest

from cxrnet.errors import CxrnetError
from cxrnet.tracking.record import alone_in, last_start, read_record, start_of, write_record


def test_a_record_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path / "run", {"run_id": "a", **start_of(["python", "x"])})
    record = read_record(tmp_path / "run")
    assert (record["run_id"], record["command"]) == ("a", ["python", "x"])
    assert {"started", "process", "host"} <= set(record)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", [None, "", "{", "[1]"])
def test_where_there_is_no_record_it_is_empty(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    assert read_record(tmp_path) == {}


def test_the_last_start():
    first, second = start_of(["a"]), start_of(["b"])
    assert last_start(first) == first
    assert last_start({**first, "resumptions": [start_of(["c"]), second]}) == second


def test_a_folder_without_a_record_can_be_taken_too(tmp_path):
    message = "another process is at work on this run"
    with alone_in(tmp_path), pytest.raises(CxrnetError, match=message), alone_in(tmp_path):
        pytest.fail("two at a time")
    with alone_in(tmp_path):  # free again
        pass


def test_where_a_folder_cannot_be_locked_the_user_is_warned(tmp_path, monkeypatch, caplog):
    def refuse(*_arguments: object, **_settings: object) -> None:
        raise NotImplementedError("this file system has no locks")

    monkeypatch.setattr("cxrnet.tracking.record.FileLock.acquire", refuse)
    with alone_in(tmp_path):
        pass
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(tmp_path) in record.message
    assert "don't resume it while it still runs" in record.message
