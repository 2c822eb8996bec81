import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxrnet.errors import CxrnetError
from cxrnet.tracking.store import open_experiment, printable, tracking_uri


def test_the_configured_address_wins_over_the_environment_and_both_over_the_file(tmp_path, monkeypatch):
    assert tracking_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000/")
    assert tracking_uri(None, tmp_path) == "http://server:5000"
    assert tracking_uri("https://other", tmp_path) == "https://other"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking_uri("", tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_addresses_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = tracking_uri("sqlite:///runs/mlflow.db", tmp_path)
    assert here == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert tracking_uri(here, tmp_path) == here
    assert tracking_uri(None, Path("outputs")) == f"sqlite:///{tmp_path}/outputs/mlflow.db"


@pytest.mark.parametrize("address", ["./mlruns", "/data/mlruns", "file:///data/mlruns", "file:mlruns", "sqlite://"])
def test_a_file_store_is_refused_with_what_to_use(address, tmp_path, monkeypatch):
    with pytest.raises(CxrnetError, match=r"^tracking\.uri: .* use sqlite:///<folder>/mlflow\.db or http") as caught:
        tracking_uri(address, tmp_path)
    assert "\n" not in str(caught.value)
    assert address in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(CxrnetError, match=r"^MLFLOW_TRACKING_URI: "):
        tracking_uri(None, tmp_path)


def test_a_path_that_sqlite_cannot_carry_is_refused(tmp_path):
    with pytest.raises(CxrnetError, match="holds % or \\?"):
        tracking_uri(None, tmp_path / "50% done")


def test_passwords_do_not_reach_messages():
    assert printable("http://me:secret@server:5000/x") == "http://server:5000/x"
    assert printable("http://server:5000") == "http://server:5000"
    assert printable("sqlite:////data/me@home/mlflow.db") == "sqlite:////data/me@home/mlflow.db"


def test_a_password_in_the_configuration_is_refused_unseen(tmp_path, monkeypatch):
    with pytest.raises(
        CxrnetError, match=r"^tracking\.uri: 'https://server' comes with .*MLFLOW_TRACKING_URI"
    ) as caught:
        tracking_uri("https://me:secret@server", tmp_path)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@server")
    assert tracking_uri(None, tmp_path) == "https://me:secret@server"


def test_artifacts_stand_beside_the_database_with_an_absolute_address(uri, outputs, client):
    experiment = client.get_experiment(open_experiment(uri, "places", outputs))
    assert experiment.artifact_location == (outputs / "mlflow-artifacts").as_uri()
    assert open_experiment(uri, "places", outputs) == experiment.experiment_id


def test_a_deleted_experiment_is_named_with_the_way_back(uri, outputs, client):
    experiment_id = open_experiment(uri, "gone", outputs)
    client.delete_experiment(experiment_id)
    with pytest.raises(CxrnetError, match=f"'gone' was deleted in MLflow; .*restore -x {experiment_id}"):
        open_experiment(uri, "gone", outputs)


def test_a_file_that_is_no_database_or_no_file_is_an_error_at_once(tmp_path):
    (tmp_path / "mlflow.db").write_text("These are not the tables you are looking for. " * 50)
    (tmp_path / "folder.db").mkdir()
    for name in ("mlflow.db", "folder.db", "mlflow.db/below/it.db"):
        with pytest.raises(CxrnetError, match="cannot be written"):
            open_experiment(f"sqlite:///{tmp_path}/{name}", "x", tmp_path)


def test_a_database_of_another_mlflow_names_the_command_that_updates_it(outputs, tmp_path):
    file = tmp_path / "old.db"
    shutil.copy(outputs / "mlflow.db", file)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(CxrnetError, match=r"cannot be used: .*mlflow db upgrade") as caught:
        open_experiment(f"sqlite:///{file}", "x", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_job_that_was_stopped_while_it_made_the_tables_does_no_harm(tmp_path):
    (tmp_path / "mlflow.db.partial").write_text("half a database")
    (tmp_path / "mlflow.db").touch()
    assert open_experiment(f"sqlite:///{tmp_path}/mlflow.db", "x", tmp_path) == "1"
    assert not (tmp_path / "mlflow.db.partial").exists()


def test_a_database_with_other_tables_is_an_error_of_one_line(tmp_path):
    with sqlite3.connect(tmp_path / "mine.db") as connection:
        connection.execute("CREATE TABLE metrics (step INTEGER)")
    with pytest.raises(CxrnetError, match="cannot be used: ") as caught:
        open_experiment(f"sqlite:///{tmp_path}/mine.db", "x", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_an_error_within_seconds(tmp_path):
    start = time.monotonic()
    with pytest.raises(
        CxrnetError, match=r"no MLflow server answers at 'http://127\.0\.0\.1:9'.*tracking=none"
    ) as caught:
        open_experiment("http://me:secret@127.0.0.1:9", "x", tmp_path)
    assert "secret" not in str(caught.value)
    assert time.monotonic() - start < 20  # MLflow by itself takes minutes


def test_four_jobs_that_start_at_once_share_one_store_and_experiment(tmp_path):
    code = (
        "import sys; from pathlib import Path; from cxrnet.tracking.store import open_experiment\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(open_experiment(sys.argv[1], 'sweep', Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        job.stdin.write("go\n")
        job.stdin.flush()
    answers = [job.communicate() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0, 0], answers
    assert len({ids for ids, _ in answers}) == 1
    assert answers[0][0].strip() not in ("", "0")
    assert [chatter for _, chatter in answers] == [""] * 4
