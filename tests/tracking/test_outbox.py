import math
import os
from pathlib import Path

import pytest

from cxrnet.errors import CxrnetError
from cxrnet.tracking.outbox import CALLS, SENT, Outbox


def add_three(folder):
    outbox = Outbox(folder, "run")
    for step in range(3):
        outbox.add("metrics", {"values": {"loss": math.nan, "größe \udcff": 1 / 3}, "step": step})
    return outbox


def test_what_is_written_is_read_with_its_time_and_number(tmp_path):
    first = add_three(tmp_path).after(0)
    read = Outbox(tmp_path, "run")
    assert read.waiting == 3
    assert read.after(0).arguments["values"]["größe \udcff"] == 1 / 3
    assert math.isnan(read.after(0).arguments["values"]["loss"])
    assert (read.after(0).time, read.after(0).number) == (first.time, 1)
    assert read.after(3) is None


def test_what_has_arrived_waits_no_more_but_for_another_run(tmp_path):
    outbox = add_three(tmp_path)
    outbox.settle(outbox.after(0))
    outbox.settle(outbox.after(1), refused="log metrics (no)")
    read = Outbox(tmp_path, "run")
    assert (read.waiting, read.after(0).number, read.refused) == (1, 3, ["log metrics (no)"])
    assert (Outbox(tmp_path, "another").waiting, Outbox(tmp_path, "another").refused) == (3, [])


@pytest.mark.parametrize("cut", [1, 2, 30])
@pytest.mark.parametrize("name", [CALLS, SENT])
def test_a_line_that_was_cut_off_is_as_if_it_had_not_been(tmp_path, name, cut):
    outbox = add_three(tmp_path)
    outbox.settle(outbox.after(0))
    outbox.settle(outbox.after(0))
    os.truncate(tmp_path / name, (tmp_path / name).stat().st_size - cut)
    again = Outbox(tmp_path, "run")
    # Without its end of the line only, it is whole.
    assert again.waiting == {CALLS: 0, SENT: 2}[name] + (cut == 1) * {CALLS: 1, SENT: -1}[name]
    again.add("status", {"status": "FINISHED"})
    last = Outbox(tmp_path, "run")
    assert last.waiting == again.waiting
    numbers = [call.number for call in last._waiting.values()]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    "line", ["5", "[]", "null", '{"number": 9}', '{"number": "1", "kind": 1, "time": 1, "arguments": {}}']
)
def test_a_line_that_is_no_call_is_left_out_aloud(tmp_path, line, caplog):
    add_three(tmp_path)
    for name in (CALLS, SENT):
        with (tmp_path / name).open("a") as file:
            file.write(line + "\n")
    assert Outbox(tmp_path, "run").waiting == 3
    assert ["is no call and is left out" in record.getMessage() for record in caplog.records] == [True]


def test_a_pipe_in_place_of_the_outbox_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / CALLS)
    with pytest.raises(CxrnetError, match="is no file; remove it"):
        Outbox(tmp_path, "run")


def test_a_user_and_password_are_not_written(tmp_path):
    outbox = Outbox(tmp_path, "run", 'me:se"cret')
    outbox.add("params", {"values": {"tracking.uri": 'http://me:se"cret@server', "model": "resnet50"}})
    assert "cret" not in (tmp_path / CALLS).read_text()
    assert outbox.after(0).arguments["values"] == {"tracking.uri": "http://server", "model": "resnet50"}


def test_nothing_is_made_before_something_is_told(tmp_path):
    assert Outbox(tmp_path, "run").waiting == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_what_a_full_disk_does_not_take_waits_in_memory_and_is_said_once(tmp_path, caplog):
    outbox = Outbox(tmp_path, "run")
    for name in (CALLS, SENT):
        (tmp_path / name).symlink_to("/dev/full")
    outbox.add("status", {"status": "RUNNING"})
    outbox.add("status", {"status": "FINISHED"})
    assert [record.getMessage().count("can't be written (No space left") for record in caplog.records] == [1]
    outbox.settle(outbox.after(0))
    assert (outbox.waiting, outbox.after(0).arguments) == (1, {"status": "FINISHED"})
