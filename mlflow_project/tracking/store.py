"""Finds the MLflow store of this process. Only `existing_store` imports mlflow."""

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

DEFAULT_EXPERIMENT = "rlinf-isaac"
"""The experiment of whatever names no other."""
_SQLITE = "sqlite:///"


def tracking_uri() -> str:
    """The URI set by `mlflow.set_tracking_uri`, else MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory.

    A relative path to a database is made absolute.
    """
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None and mlflow.is_tracking_uri_set():
        uri = mlflow.get_tracking_uri()
    else:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(Path("mlflow.db"))
    # A relative path would name another file after a change of directory, and `sync` may be called from anywhere.
    path = sqlite_path(uri)
    if path is None or uri.startswith(f"{_SQLITE}/"):
        return uri
    _, mark, query = uri.partition("?")
    return sqlite_uri(path) + mark + query


def sqlite_uri(path: Path) -> str:
    """URI of a database file. Only the characters with a meaning in SQLAlchemy's URLs are escaped, because MLflow also
    creates the parent directory of the escaped path, an empty directory beside the right one."""
    return _SQLITE + str(path.absolute()).replace("%", "%25").replace("?", "%3F")


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite database; None for other stores and for a database in memory."""
    path = unquote(uri.removeprefix(_SQLITE).partition("?")[0])
    return Path(path) if uri.startswith(_SQLITE) and path not in ("", ":memory:") else None


def is_missing(uri: str) -> bool:
    """Whether `uri` names a database file that does not exist; an MLflow client would create it."""
    path = sqlite_path(uri)
    return path is not None and not path.exists()


def artifact_location(uri: str, experiment: str) -> str | None:
    """Artifact location of a new experiment; None for MLflow's default.

    The default fails if the working directory's path contains ``%``: MLflow unescapes the path and writes elsewhere.
    """
    root = Path("mlruns").absolute()
    if sqlite_path(uri) is None or "%" not in str(root):
        return None
    return (root / quote(experiment, safe="")).as_uri()


def with_credentials(uri: str) -> str:
    """Restore the credentials of a journal's `uri`, if it names the store that this process uses."""
    current = tracking_uri()
    return current if without_credentials(current) == uri else uri


def existing_store() -> MlflowClient:
    """Client of the store at `tracking_uri`.

    Raises:
        InvalidJob: the store is a database file that does not exist (MLflow would create it).
    """
    from mlflow_project.tracking.mlflow_environment import prepare_environment

    uri = tracking_uri()
    if is_missing(uri):
        raise InvalidJob.of("not-in-store", f"there is no MLflow store at {uri}", "set MLFLOW_TRACKING_URI")
    prepare_environment()
    from mlflow import MlflowClient

    return MlflowClient(uri)
