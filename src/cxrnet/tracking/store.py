"""The store of runs: an MLflow server, or a SQLite file under the outputs folder."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from cxrnet.core.atomic import whole_file
from cxrnet.core.process import quick_imports
from cxrnet.errors import CxrnetError

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("cxrnet")

SQLITE = "sqlite:///"
_HTTP = ("http://", "https://")
ARTIFACTS = "mlflow-artifacts"
KIND = ("mlflow.experimentKind", "custom_model_development")
"""The tag of an experiment by which MLflow 3 opens its view of model training; without it MLflow guesses."""

_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),  # of the model registry
    ("model_versions", "source"),
)
"""Columns in MLflow's database that hold the place of an artifact."""

ENVIRONMENT = {
    # MLflow's own defaults wait 120 s, seven times. The time-out must leave a busy server the time to answer, and to
    # store the largest bundle after the upload.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    # Again and again is our own part: MLflow doesn't look whether what it repeats has been done before, and where an
    # answer was lost it makes a second run, or a second model.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # Nothing about the user leaves the machine unasked. Read when mlflow is imported.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Otherwise a uv.lock and pyproject.toml found in the working directory travel with each logged model.
    "MLFLOW_UV_AUTO_DETECT": "false",
    # The console is ours.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def tracking_uri(configured: str | None, outputs: Path) -> str:
    """Return the address of the store: as configured, else ``MLFLOW_TRACKING_URI``, else a file in ``outputs``.

    Args:
        configured: ``http(s)://...`` or ``sqlite:///<file>``; None or empty: not configured.
        outputs: the folder of all runs; the default store is ``mlflow.db`` in it.

    Returns:
        An address that does not depend on the working directory.

    Raises:
        CxrnetError: the address is of another kind (MLflow gave up its file store), the path of the SQLite file holds
            a character that such an address cannot carry, or a configured address holds a password, which the
            configuration would be logged with.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{outputs / 'mlflow.db'}"
    if configured and userinfo(configured):
        raise CxrnetError(
            f"tracking.uri: '{printable(uri)}' comes with a user or password, which config.yaml would keep and "
            "MLflow show; give the whole address by MLFLOW_TRACKING_URI, or user and password by "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if uri.startswith(_HTTP):
        return uri.rstrip("/")
    file = uri.removeprefix(SQLITE)
    if file in (uri, "", ":memory:"):
        setting = "tracking.uri" if configured else "MLFLOW_TRACKING_URI"
        raise CxrnetError(
            f"{setting}: '{printable(uri)}' cannot keep runs (MLflow has given up plain folders); "
            f"use {SQLITE}<folder>/mlflow.db or http(s)://<server>"
        )
    if "%" in file or "?" in file:
        raise CxrnetError(f"tracking: the path '{file}' holds % or ?, which SQLite addresses cannot; choose another")
    return SQLITE + Path(file).resolve().as_posix()


@contextmanager
def opened(uri: str, make: bool = True) -> Iterator["MlflowClient"]:
    """Open a store; what a moved folder has left wrong in it is mended.

    Args:
        uri: what :func:`tracking_uri` returned.
        make: make the SQLite file where there is none, safe when many jobs do so at once; else nothing is made.

    Raises:
        CxrnetError: there is no such store, the file can't be written or is no MLflow database of the installed
            version, or MLflow fails inside the ``with``.
    """
    prepare_mlflow()
    with quick_imports():
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

    database = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
    if database is None and not _answers(uri):
        raise CxrnetError(
            f"tracking: no MLflow server answers at '{printable(uri)}'; start it, correct tracking.uri or "
            "MLFLOW_TRACKING_URI, or set tracking=none"
        )
    if database is not None and not make and not database.is_file():
        raise CxrnetError(
            f"tracking: there is no MLflow at '{printable(uri)}'; correct tracking.uri or outputs, or give folders"
        )
    try:
        with quiet():
            if database is not None:
                if make:
                    _make_database(database)
                _mend_places(database)
            yield MlflowClient(uri)
    except (MlflowException, SQLAlchemyError) as error:
        reason = without_secret(str(error).splitlines()[0], uri)
        remedy = "; mend or restart it, or set tracking=none" if make else ""
        raise CxrnetError(
            f"tracking: MLflow at '{printable(uri)}' cannot be {'used' if make else 'read'}: {reason}{remedy}"
        ) from error


def find_experiment(client: "MlflowClient", name: str, outputs: Path) -> str:
    """Find or create an experiment; return its id.

    With a SQLite store artifacts are kept in ``mlflow-artifacts`` in ``outputs``; a server has a place of its own.

    Raises:
        CxrnetError: the experiment was deleted.
    """
    from mlflow.exceptions import MlflowException

    local = client.tracking_uri.startswith(SQLITE)
    artifacts = (outputs.resolve() / ARTIFACTS).as_uri() if local else None
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags=dict([KIND])))
        except MlflowException:  # on a server, another job may have been faster
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise CxrnetError(
            f"tracking.experiment: '{name}' was deleted in MLflow; take another name, or bring it back with: "
            f"mlflow experiments restore -x {experiment.experiment_id}"
        )
    if KIND[0] not in experiment.tags:
        with contextlib.suppress(MlflowException):
            client.set_experiment_tag(experiment.experiment_id, *KIND)
    return str(experiment.experiment_id)


def printable(uri: str) -> str:
    """Return the address without user and password, for messages and files."""
    return without_secret(uri, uri)


def without_secret(text: str, uri: str) -> str:
    """Return a text without the user and password of an address."""
    secret = userinfo(uri)
    return text.replace(f"{secret}@", "") if secret else text


def userinfo(uri: str) -> str:
    """Return ``user:password`` of an address, which is never written; empty where there is none."""
    return urlsplit(uri).netloc.rpartition("@")[0]


def prepare_mlflow() -> None:
    """Set what MLflow reads from the environment, where the user has not; call it before mlflow is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's notes on migrations, its tracebacks of a busy database, and urllib3's words off the console.

    Errors are raised too.
    """
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3.connectionpool")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _answers(uri: str) -> bool:
    """Tell whether an MLflow server answers within three seconds."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:  # the way of all real calls: same proxy, certificates and credentials
        with quiet():
            server = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
            http_request(server, "/health", "GET", timeout=3, max_retries=0)  # type: ignore[no-untyped-call]
    except MlflowException:
        return False
    return True


def _make_database(file: Path) -> None:
    """Make sure that the database can be written and has its tables.

    MLflow 3.17 makes the tables without a lock, and one after the other: two jobs at a time, or one that is stopped,
    leave a database that is of no use any more. A file that cannot be opened it tries again for 100 seconds.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock", timeout=120):
            with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection:
                connection.execute("BEGIN IMMEDIATE")
            if file.stat().st_size == 0:
                _make_tables(file)
    except Timeout as error:
        raise CxrnetError(f"tracking: another job has kept '{error.lock_file}' for two minutes; end it") from error
    except (OSError, sqlite3.Error) as error:
        raise CxrnetError(f"tracking: the database '{file}' cannot be written ({error}); choose another") from error


def _make_tables(file: Path) -> None:
    from mlflow import MlflowClient
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def do_not_wait(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    with whole_file(file) as partial:
        partial.unlink(missing_ok=True)  # of a job that was killed: MLflow would go on with its tables
        # MLflow makes the tables by all its migrations since the first one, and SQLite waits for the disk after each
        # of their hundreds of statements. Nobody else knows the file yet: once at the end is enough.
        event.listen(Engine, "connect", do_not_wait)
        try:
            client = MlflowClient(SQLITE + partial.as_posix())
            client._tracking_client.store.engine.dispose()  # Windows moves no open file
        finally:
            event.remove(Engine, "connect", do_not_wait)
        with partial.open("rb+") as written:
            os.fsync(written.fileno())


def _mend_places(database: Path) -> None:
    """Let a local store whose folder was moved find the artifacts that lie beside it, and say so.

    MLflow stores where each artifact lies, from the root on. A place is mended where it is in a folder
    ``mlflow-artifacts`` that is gone, and the one beside the database holds what was in it.
    """
    ours = database.parent / ARTIFACTS
    if not ours.is_dir():
        return
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=20, isolation_level=None)) as connection:
            columns = [
                (table, column)
                for table, column in _COLUMNS
                if any(name == column for _, name, *_ in connection.execute(f"PRAGMA table_info({table})"))
            ]
            if not (gone := _gone(connection, columns, ours)):
                return
            connection.execute("BEGIN IMMEDIATE")
            for old in gone:
                values = (ours.as_uri(), len(old) + 1, old, len(old) + 1, f"{old}/")
                for table, column in columns:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        values,
                    )
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        log.warning(
            "tracking: '%s' may point to where its folder was before, and can't be mended (%s)", database, error
        )
        return
    for old in gone:
        log.warning("tracking: MLflow's artifacts were in '%s', which is gone; from now on in '%s'", _path(old), ours)


def _gone(connection: sqlite3.Connection, columns: list[tuple[str, str]], ours: Path) -> list[str]:
    """Find the folders ``mlflow-artifacts`` that aren't there, and whose artifacts are in ours."""
    below: dict[str, list[str]] = {}
    for table, column in columns:
        for (place,) in connection.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file://%'"):
            before, found, rest = f"{place}/".partition(f"/{ARTIFACTS}/")
            if found:
                below.setdefault(f"{before}/{ARTIFACTS}", []).append(rest)
    gone = {root: [rest for rest in rests if rest] for root, rests in below.items() if not _path(root).exists()}
    # A disk that is not mounted looks the same, but its files aren't here.
    return sorted(root for root, rests in gone.items() if not rests or any((ours / rest).exists() for rest in rests))


def _path(uri: str) -> Path:
    return Path(url2pathname(urlsplit(uri).path))
