"""Which MLflow store runs go to, and how a journal names it. Imports mlflow only where a client is asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from mlflow_project.tracking.redact import without_credentials
from rlinf_isaac.ground.errors import InvalidJob

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"


def tracking_uri() -> str:
    """What this process told mlflow, else MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory."""
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None and mlflow.is_tracking_uri_set():
        uri = mlflow.get_tracking_uri()
    else:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(Path("mlflow.db"))
    # A relative database is another one after a change of directory, and `sync` may be called from anywhere.
    path = sqlite_path(uri)
    if path is None or uri.startswith(f"{_SQLITE}/"):
        return uri
    _, mark, query = uri.partition("?")
    return sqlite_uri(path) + mark + query


def sqlite_uri(path: Path) -> str:
    """URI of a database file. What has a meaning in SQLAlchemy's URLs is escaped, and nothing else: MLflow makes the
    parent of a path that it has not unescaped, too, an empty directory beside the right one."""
    return _SQLITE + str(path.absolute()).replace("%", "%25").replace("?", "%3F")


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite database; None for another kind of store, and for one in memory."""
    path = unquote(uri.removeprefix(_SQLITE).partition("?")[0])
    return Path(path) if uri.startswith(_SQLITE) and path not in ("", ":memory:") else None


def is_missing(uri: str) -> bool:
    """Whether `uri` is a database file that does not exist; a client of MLflow's would create it."""
    path = sqlite_path(uri)
    return path is not None and not path.exists()


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where a new experiment keeps its artifacts; None: where MLflow puts them.

    MLflow takes a path with ``%`` for an escaped one, and would write beside the working directory.
    """
    root = Path("mlruns").absolute()
    if sqlite_path(uri) is None or "%" not in str(root):
        return None
    return (root / quote(experiment, safe="")).as_uri()


def with_credentials(uri: str) -> str:
    """The inverse of `redact.without_credentials` for a journal's `uri`, where this process uses that store."""
    current = tracking_uri()
    return current if without_credentials(current) == uri else uri


def existing_store() -> MlflowClient:
    """Client of the store at `tracking_uri`.

    Raises:
        InvalidJob: it is a database that does not exist; MLflow would create it.
    """
    from mlflow_project.tracking.mlflow_environment import prepare_environment

    uri = tracking_uri()
    if is_missing(uri):
        raise InvalidJob.of("not-in-store", f"there is no MLflow store at {uri}", "set MLFLOW_TRACKING_URI")
    prepare_environment()
    from mlflow import MlflowClient

    return MlflowClient(uri)
