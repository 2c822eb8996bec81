import json
import sys
import tempfile
from importlib.util import find_spec

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


@pytest.mark.skipif(find_spec("keras") is not None, reason="Keras is installed here")
def test_the_keras_recipe_runs_as_a_script_in_the_python_that_is_given(tmp_path):
    answer = run_job(Job("Keras", "keras_recipe:train", {}, interpreter=sys.executable), tmp_path / "jobs.log")
    assert answer.missing == "keras not installed; see keras_python"
    assert json.loads((tmp_path / "jobs.log").read_text().splitlines()[1])["function"] == "keras_recipe:train"
