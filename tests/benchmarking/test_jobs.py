import json
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from cxrnet.benchmarking.jobs import Job, run_job

PASS = {"line": ["-c", "pass"], "fails": False}


def test_a_job_answers_with_numbers_from_a_process_of_its_own(tmp_path):
    answer = run_job(Job("python", "commands:run", PASS), tmp_path / "jobs.log")
    assert answer.numbers["seconds"] > 0
    assert answer.missing is answer.failed is None


def test_a_contender_that_is_not_installed_is_missing_and_has_not_failed(tmp_path):
    answer = run_job(Job("other", "commands:run", PASS, needs=("no_such_package",)), tmp_path / "jobs.log")
    assert answer.missing == "no_such_package not installed"
    assert answer.numbers is answer.failed is None


def test_a_job_compiles_anew_and_leaves_nothing_in_the_folder_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    code = "import os, tempfile; tempfile.mkdtemp(); os.mkdir(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    for _ in range(2):
        answer = run_job(Job("python", "commands:run", {"line": ["-c", code], "fails": False}), tmp_path / "jobs.log")
        assert answer.failed is None
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.log"]


def test_what_is_known_to_be_missing_is_not_begun(tmp_path):
    answer = run_job(Job("other", "commands:run", PASS, missing="not given"), tmp_path / "jobs.log")
    assert answer.missing == "not given"
    assert not (tmp_path / "jobs.log").exists()


def test_a_job_that_fails_says_why_and_its_words_are_kept(tmp_path):
    answer = run_job(Job("odd", "commands:run", {**PASS, "fails": True}), tmp_path / "jobs.log")
    assert answer.failed.startswith("RuntimeError: python -c pass ended with 0")
    log = (tmp_path / "jobs.log").read_text()
    assert log.startswith("== odd\n")
    assert "Traceback" in log


def test_who_stops_waiting_ends_what_the_job_has_started_too(tmp_path):
    note = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(600)"
    job = f"Job('long', 'commands:run', {{'line': ['-c', {code!r}], 'fails': False}})"
    waits = f"from pathlib import Path; from cxrnet.benchmarking.jobs import Job, run_job; run_job({job}, Path('log'))"
    # A shell ignores SIGINT for jobs in the background; a person's terminal doesn't.
    with subprocess.Popen(
        [sys.executable, "-c", waits], cwd=tmp_path, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as waiting:  # fmt: skip
        while not (note.exists() and note.read_text()):
            assert waiting.poll() is None
            time.sleep(0.05)
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=60)
    for _ in range(200):  # a killed process stays until the system has noticed
        if not Path(f"/proc/{note.read_text()}/cwd").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{note.read_text()}/cwd").exists()


@pytest.mark.skipif(find_spec("keras") is not None, reason="Keras is installed here")
def test_the_keras_recipe_runs_as_a_script_in_the_python_that_is_given(tmp_path):
    answer = run_job(Job("Keras", "keras_recipe:train", {}, interpreter=sys.executable), tmp_path / "jobs.log")
    assert answer.missing == "keras not installed; see keras_python"
    assert json.loads((tmp_path / "jobs.log").read_text().splitlines()[1])["function"] == "keras_recipe:train"
