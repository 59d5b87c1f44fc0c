"""Finds the MLflow store of this process. Only `existing_store` imports mlflow."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlflow_project.tracking.databases import sqlite_path as sqlite_path
from mlflow_project.tracking.databases import sqlite_uri as sqlite_uri
from mlflow_project.tracking.known_stores import STORE_FILE, known_outputs, missing_store_cure, store_above
from mlflow_project.tracking.redact import without_credentials
from rlinf_isaac.ground.errors import InvalidJob

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_EXPERIMENT = "rlinf-isaac"
"""The experiment of whatever names no other."""


def tracking_uri() -> str:
    """The URI set by `mlflow.set_tracking_uri`, else MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory.

    A relative path to a database is made absolute.
    """
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None and mlflow.is_tracking_uri_set():
        uri = mlflow.get_tracking_uri()
    else:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(Path(STORE_FILE))
    # A relative path would name another file after a change of directory, and `sync` may be called from anywhere.
    path = sqlite_path(uri)
    if path is None or uri.startswith("sqlite:////"):
        return uri
    _, mark, query = uri.partition("?")
    return sqlite_uri(path) + mark + query


def is_missing(uri: str) -> bool:
    """Whether `uri` names a database file that does not exist; an MLflow client would create it."""
    path = sqlite_path(uri)
    return path is not None and not path.exists()


def nearest_store(start: Path | None = None) -> str:
    """The store that a person in this directory means.

    It is the one that MLflow or MLFLOW_TRACKING_URI names; else ``mlflow.db`` in the working directory, or in the
    nearest directory above it that has one; else the one that was used last.
    """
    uri = tracking_uri()
    if os.environ.get("MLFLOW_TRACKING_URI") or not is_missing(uri):
        return uri
    if (above := store_above(start or Path.cwd())) is not None:
        return sqlite_uri(above)
    return next((known.uri for known in known_outputs() if not is_missing(known.uri)), uri)


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
        raise InvalidJob.of("not-in-store", f"there is no MLflow store at {uri}", missing_store_cure())
    prepare_environment()
    from mlflow import MlflowClient

    return MlflowClient(uri)
