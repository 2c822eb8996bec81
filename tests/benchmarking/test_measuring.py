from cxrnet.benchmarking.jobs import Answer, Job
from cxrnet.benchmarking.measuring import Measured, measure, rounds_of


def command(name: str, code: str = "pass", fails: bool = False, **more) -> Job:
    return Job(name, "commands:run", {"line": ["-c", code], "fails": fails}, **more)


def test_contenders_run_in_turn_and_those_that_cannot_are_asked_once(tmp_path):
    jobs = [
        command("one"),
        command("absent", needs=("no_such_package",)),
        command("broken", "raise SystemExit(1)"),
        command("two"),
    ]
    measured = [Measured(job) for job in jobs]
    measure("a group", measured, 2, tmp_path / "jobs.log")
    order = [line[3:] for line in (tmp_path / "jobs.log").read_text().splitlines() if line.startswith("== ")]
    assert order == ["one", "absent", "broken", "two", "one", "two"]
    assert [len(one.repeats) for one in measured] == [2, 0, 0, 2]
    assert measured[1].missing == "no_such_package not installed"
    assert measured[2].failed.startswith("RuntimeError: python -c raise SystemExit(1) ended with 1")
    assert [set(table.rows) for table in rounds_of(measured)] == [{"one", "two"}, {"one", "two"}]


def test_medians_are_of_numbers_and_words_stay():
    measured = Measured(Job("one", "commands:run"))
    for seconds in (3.0, 1.0, 8.0):
        measured.add(Answer(numbers={"seconds": seconds, "weights": "file"}))
    assert measured.medians == {"seconds": 3.0, "weights": "file"}


def test_a_round_that_was_stopped_has_what_was_done_in_it():
    first, second = Measured(Job("one", "commands:run")), Measured(Job("two", "commands:run"))
    assert rounds_of([first, second]) == []
    first.add(Answer(numbers={"seconds": 3.0}))
    second.add(Answer(numbers={"seconds": 4.0}))
    first.add(Answer(numbers={"seconds": 5.0}))
    whole, stopped = rounds_of([first, second])
    assert (whole.get("one", "seconds"), whole.get("two", "seconds")) == (3.0, 4.0)
    assert stopped.get("one", "seconds") == 5.0
    assert stopped.get("two", "seconds") is stopped.get("one", "rate") is None
