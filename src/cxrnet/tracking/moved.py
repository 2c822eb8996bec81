"""A local store whose folder was renamed or moved: MLflow stores where each artifact lies, from the root on."""

import contextlib
import logging
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

log = logging.getLogger("cxrnet")

ARTIFACTS = "mlflow-artifacts"
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),  # of the model registry
    ("model_versions", "source"),
)


def mend_places(database: Path) -> None:
    """Let a store whose artifacts lie beside it find them after its folder was moved, and say so.

    A place is mended where it is in a folder ``mlflow-artifacts`` that is gone, and the one beside the database holds
    what was in it. One that is still there is never touched.

    Args:
        database: ``mlflow.db``, which exists.
    """
    ours = database.parent / ARTIFACTS
    if not ours.is_dir():
        return
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=20, isolation_level=None)) as connection:
            columns = [place for place in COLUMNS if _has(connection, *place)]
            if not (gone := _gone(connection, columns, ours)):
                return
            connection.execute("BEGIN IMMEDIATE")
            for old in gone:
                for table, column in columns:
                    _replace(connection, table, column, old, ours.as_uri())
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        log.warning(
            "tracking: '%s' may point to where its folder was before, and can't be mended (%s)", database, error
        )
        return
    for old in gone:
        log.warning("tracking: MLflow's artifacts were in '%s', which is gone; from now on in '%s'", _path(old), ours)


def _gone(connection: sqlite3.Connection, columns: list[tuple[str, str]], ours: Path) -> list[str]:
    """The addresses of folders ``mlflow-artifacts`` that aren't there, and what was in them is in ours."""
    below: dict[str, list[str]] = {}
    for table, column in columns:
        for (place,) in connection.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file://%'"):
            before, found, rest = f"{place}/".partition(f"/{ARTIFACTS}/")
            if found:
                below.setdefault(f"{before}/{ARTIFACTS}", []).append(rest)
    gone = {root: [rest for rest in rests if rest] for root, rests in below.items() if not _path(root).exists()}
    # A disk that is not mounted looks the same, but its files aren't here.
    return sorted(root for root, rests in gone.items() if not rests or any((ours / rest).exists() for rest in rests))


def _replace(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    connection.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
    )


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return any(name == column for _, name, *_ in connection.execute(f"PRAGMA table_info({table})"))


def _path(uri: str) -> Path:
    return Path(url2pathname(urlsplit(uri).path))
