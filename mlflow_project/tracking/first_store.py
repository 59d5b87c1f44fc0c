"""Creates the MLflow database of a new directory atomically.

MLflow creates its tables by some forty migrations, which take seconds and are not one transaction. A process that is
killed meanwhile leaves a file that no release of MLflow can open. So the database is created under a temporary name and
renamed when it is complete. An incomplete file of another program (`mlflow run` and `mlflow ui` create it in place) is
renamed, and a new database takes its place.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from mlflow_project.tracking.store import sqlite_path, sqlite_uri
from rlinf_isaac.ground import atomic

QUIET_S = 8.0
"""Seconds after which an incomplete, unwritten database counts as abandoned; running migrations write all the time."""

logger = logging.getLogger("mlflow_project")


def ensure_store(uri: str) -> None:
    """Create the database of `uri` if it is a file that is missing or incomplete. Any other store is left alone.

    Raises:
        OSError: the directory cannot be written.
        mlflow.exceptions.MlflowException: MLflow could not create its tables.
    """
    path = sqlite_path(uri)
    if path is None or _is_made(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.exclusive(path.with_name(f".{path.name}.lock")):
        while not _is_made(path):
            if path.exists():
                _wait_for_its_maker(path)
                _put_aside(path)
            else:
                _make(path)


def _make(path: Path) -> None:
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    try:
        with atomic.new_file(path) as temporary:
            store = SqlAlchemyStore(sqlite_uri(temporary), DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
            store.engine.dispose()
            if path.exists():  # another program has created it meanwhile
                raise FileExistsError(path)
    except FileExistsError as error:
        if error.args != (path,):
            raise


def _is_made(path: Path) -> bool:
    """Whether the database `path` is complete, or belongs to another program.

    MLflow creates the experiment "Default" last. Before that its tables have no rows, so a file without this experiment
    holds nothing that could be lost.
    """
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=20)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "experiments" in tables:
                return database.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is not None
    except sqlite3.DatabaseError:  # not a database, or it cannot be opened: MLflow reports this later
        return True
    # The file is empty or holds only the first migration's table. A database of another program has other tables.
    return not tables <= {"alembic_version"}


def _wait_for_its_maker(path: Path) -> None:
    """Return when the database is complete, or when nobody has written to it for `QUIET_S`."""
    status = path.stat()
    if time.time() - status.st_mtime > 10 * QUIET_S:
        return
    last, since = (status.st_mtime_ns, status.st_size), time.monotonic()
    while not _is_made(path) and time.monotonic() - since < QUIET_S:
        time.sleep(0.1)
        status = path.stat()
        if (status.st_mtime_ns, status.st_size) != last:
            last, since = (status.st_mtime_ns, status.st_size), time.monotonic()


def _put_aside(path: Path) -> None:
    """Rename an incomplete database with the files that sqlite keeps beside it. Sqlite would apply a journal that is
    left over to the new database."""
    if _is_made(path):
        return
    name = f"{path.name}.half-made-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    for suffix in ("-journal", "-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", path.with_name(name + suffix))
    logger.warning("%s is incomplete, as its creator was killed. It is renamed to %s; a new one is created", path, name)
