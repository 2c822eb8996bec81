import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cxrnet.errors import CxrnetError
from cxrnet.models.bundle import load_bundle
from cxrnet.tracking.record import fetch_run
from cxrnet.tracking.run import track
from cxrnet.tracking.store import KIND, printable, tracking_uri


def test_the_configured_address_wins_over_the_environment_and_both_over_the_file(tmp_path, monkeypatch):
    assert tracking_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000/")
    assert tracking_uri(None, tmp_path) == "http://server:5000"
    assert tracking_uri("https://other", tmp_path) == "https://other"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking_uri("", tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


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


def test_an_experiment_opens_in_the_view_of_training_and_keeps_artifacts_beside_the_database(
    open_experiment, outputs, client
):
    experiment = client.get_experiment(open_experiment("places"))
    assert experiment.artifact_location == (outputs / "mlflow-artifacts").as_uri()
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert open_experiment("places") == experiment.experiment_id


def test_an_experiment_that_was_there_gets_the_tag_unless_it_has_another(open_experiment, client):
    older, other = client.create_experiment("older"), client.create_experiment("other", tags={KIND[0]: "finetuning"})
    assert (open_experiment("older"), open_experiment("other")) == (older, other)
    assert client.get_experiment(older).tags[KIND[0]] == KIND[1]
    assert client.get_experiment(other).tags[KIND[0]] == "finetuning"


def test_a_deleted_experiment_is_named_with_the_way_back(open_experiment, client):
    experiment_id = open_experiment("gone")
    client.delete_experiment(experiment_id)
    with pytest.raises(CxrnetError, match=f"'gone' was deleted in MLflow; .*restore -x {experiment_id}"):
        open_experiment("gone")


def test_a_file_that_is_no_database_or_no_file_is_an_error_at_once(open_experiment, tmp_path):
    (tmp_path / "mlflow.db").write_text("These are not the tables you are looking for. " * 50)
    (tmp_path / "folder.db").mkdir()
    for name in ("mlflow.db", "folder.db", "mlflow.db/below/it.db"):
        with pytest.raises(CxrnetError, match="cannot be written"):
            open_experiment("x", f"sqlite:///{tmp_path}/{name}")


def test_a_database_of_another_mlflow_names_the_command_that_updates_it(open_experiment, outputs, tmp_path):
    file = tmp_path / "old.db"
    shutil.copy(outputs / "mlflow.db", file)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(CxrnetError, match=r"cannot be used: .*mlflow db upgrade") as caught:
        open_experiment("x", f"sqlite:///{file}")
    assert "\n" not in str(caught.value)


def test_a_job_that_was_stopped_while_it_made_the_tables_does_no_harm(open_experiment, tmp_path):
    (tmp_path / "mlflow.db.partial").write_text("half a database")
    (tmp_path / "mlflow.db").touch()
    assert open_experiment("x", f"sqlite:///{tmp_path}/mlflow.db") == "1"
    assert not (tmp_path / "mlflow.db.partial").exists()


def test_a_server_that_does_not_answer_is_an_error_within_seconds(open_experiment):
    start = time.monotonic()
    with pytest.raises(
        CxrnetError, match=r"no MLflow server answers at 'http://127\.0\.0\.1:9'.*tracking=none"
    ) as caught:
        open_experiment("x", "http://me:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)
    assert time.monotonic() - start < 20  # MLflow by itself takes minutes


def test_jobs_that_start_at_once_share_one_store_and_experiment(tmp_path):
    code = (
        "import sys; from pathlib import Path; from cxrnet.tracking.store import find_experiment, opened\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "with opened(sys.argv[1]) as client: print(find_experiment(client, 'sweep', Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        job.stdin.write("go\n")
        job.stdin.flush()
    answers = [job.communicate() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], answers
    assert len({ids for ids, _ in answers}) == 1
    assert answers[0][0].strip() not in ("", "0")
    assert [chatter for _, chatter in answers] == [""] * 2


# --- a project folder that was renamed, with its database


@pytest.fixture
def project(outputs, tmp_path, make_bundle):
    """A project with one run and its model: the folder of its outputs."""
    folder = tmp_path / "my project" / "outputs"
    folder.mkdir(parents=True)
    (outputs / "mlflow-artifacts").mkdir(exist_ok=True)  # of other tests, whose experiments are in the database
    shutil.copy(outputs / "mlflow.db", folder)
    with track(folder / "runs" / "one", tracking_uri(None, folder), "of the project", folder) as run:
        (run.folder / "a.txt").write_text("first")
        run.log_artifact(run.folder / "a.txt")
        run.log_bundle(make_bundle(run.folder), ("a", "b"))
    return folder


def places(outputs):
    with sqlite3.connect(outputs / "mlflow.db") as database:
        return [
            place
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
            )
            for (place,) in database.execute(f"select {column} from {table}")
        ]


def test_artifacts_are_found_where_the_folder_is_now(project, tmp_path, caplog):
    old = project.as_uri()
    project.parent.rename(tmp_path / "renamed")
    outputs = tmp_path / "renamed" / "outputs"
    uri = tracking_uri(None, outputs)
    with track(outputs / "runs" / "two", uri, "of the project", outputs) as second:
        (second.folder / "a.txt").write_text("second")
        second.log_artifact(second.folder / "a.txt")
    assert caplog.text.count("which is gone; from now on in") == 1
    assert not (tmp_path / "my project").exists()
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("of the project").experiment_id])
    files = [Path(client.download_artifacts(run.info.run_id, "report/a.txt")) for run in runs]
    assert sorted(file.read_text() for file in files) == ["first", "second"]
    assert not [place for place in places(outputs) if place.startswith(f"{old}/mlflow-artifacts")]
    with track(outputs / "runs" / "three", uri, "of the project", outputs):
        pass
    assert caplog.text.count("which is gone") == 1


def test_an_old_model_is_found_when_it_is_read(project, tmp_path):
    project.parent.rename(tmp_path / "renamed")
    outputs = tmp_path / "renamed" / "outputs"
    uri = tracking_uri(None, outputs)
    experiment = MlflowClient(uri).get_experiment_by_name("of the project")
    (run,) = MlflowClient(uri).search_runs([experiment.experiment_id])
    shutil.rmtree(outputs / "runs")
    (tmp_path / "scratch").mkdir()
    assert load_bundle(fetch_run(uri, run.info.run_id, tmp_path / "scratch") / "bundle").classes == ("a", "b")


@pytest.mark.parametrize("case", ["copied", "not mounted"])
def test_a_place_that_is_or_may_be_still_there_stays(project, tmp_path, case):
    outputs = tmp_path / "another" / "outputs"
    if case == "copied":
        shutil.copytree(project, outputs)
    else:  # the artifacts were on another disk, and those beside the database are of other runs
        (outputs / "mlflow-artifacts" / "0123").mkdir(parents=True)
        shutil.copy(project / "mlflow.db", outputs)
        shutil.rmtree(project)
    before = places(outputs)
    with track(outputs / "runs" / "two", tracking_uri(None, outputs), "another", outputs):
        pass
    assert [place for place in before if place not in places(outputs)] == []
