from cxrnet.benchmarking.jobs import Answer, Job
from cxrnet.benchmarking.measuring import Measured, measure, table_of


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
    assert set(table_of(measured).rows) == {"one", "two"}


def test_medians_are_of_numbers_and_words_stay():
    measured = Measured(Job("one", "commands:run"))
    for seconds in (3.0, 1.0, 8.0):
        measured.add(Answer(numbers={"seconds": seconds, "weights": "file"}))
    assert measured.medians == {"seconds": 3.0, "weights": "file"}
    table = table_of([measured])
    assert table.get("one", "seconds") == 3.0
    assert table.get("one", "rate") is table.get("two", "seconds") is None
