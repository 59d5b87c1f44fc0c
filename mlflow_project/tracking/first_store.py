"""The database of a new directory is made whole or not at all.

MLflow makes its tables by some forty migrations, seconds of work that are not one transaction: a process that is killed
meanwhile leaves a file that no release of MLflow opens again. So the file is made under another name and gets its own
when it is complete. A file that somebody else left half made (`mlflow run` and `mlflow ui` make one directly) is put
aside, and a new one takes its place.
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
"""A database that nobody has touched for so long is not being made by somebody else: that takes seconds, and writes all
the time."""

logger = logging.getLogger("mlflow_project")


def ensure_store(uri: str) -> None:
    """Make the database of `uri` if it is a file that does not exist or is half made; leave any other store alone.

    Raises:
        OSError: its directory cannot be written.
        mlflow.exceptions.MlflowException: MLflow could not make its tables.
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
            if path.exists():  # MLflow itself was faster
                raise FileExistsError(path)
    except FileExistsError as error:
        if error.args != (path,):
            raise


def _is_made(path: Path) -> bool:
    """Whether MLflow has finished making `path`, or something else is in it.

    The last thing that MLflow does is to make the experiment "Default". Until then there is no row in any of its
    tables, so nothing can be lost of a file that has none.
    """
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=20)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "experiments" in tables:
                return database.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is not None
    except sqlite3.DatabaseError:  # no database, or none that can be opened: MLflow will say so
        return True
    # Nothing yet, or leavings of the first migrations; a database of somebody else's has other tables.
    return not tables <= {"alembic_version"}


def _wait_for_its_maker(path: Path) -> None:
    """Return when `path` is made, or when nobody has written to it for `QUIET_S`."""
    status = path.stat()
    if time.time() - status.st_mtime > 10 * QUIET_S:
        return
    seen, since = (status.st_mtime_ns, status.st_size), time.monotonic()
    while not _is_made(path) and time.monotonic() - since < QUIET_S:
        time.sleep(0.1)
        status = path.stat()
        if (status.st_mtime_ns, status.st_size) != seen:
            seen, since = (status.st_mtime_ns, status.st_size), time.monotonic()


def _put_aside(path: Path) -> None:
    """Rename a half-made file, and what sqlite keeps beside it: a left-over journal would be applied to the next."""
    if _is_made(path):
        return
    name = f"{path.name}.half-made-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    for suffix in ("-journal", "-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", path.with_name(name + suffix))
    logger.warning("%s was left half made by a process that was killed: it is %s now, a new one is made", path, name)
