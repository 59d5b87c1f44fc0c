"""Which MLflow store runs go to, and how a journal names it. Imports mlflow only where a client is asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from rlinf_isaac.errors import InvalidJob

if TYPE_CHECKING:
    from mlflow import MlflowClient


def tracking_uri() -> str:
    """What this process told mlflow, else MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory."""
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None and mlflow.is_tracking_uri_set():
        uri = mlflow.get_tracking_uri()
    else:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    # A relative database is another one after a change of directory, and `sync` may be called from anywhere.
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{Path.cwd() / uri.removeprefix('sqlite:///')}"
    return uri


def without_credentials(uri: str) -> str:
    """`uri` without user and password: journals are files that people pass on."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def with_credentials(uri: str) -> str:
    """The inverse for a journal's `uri`, where this process is set up for the same store."""
    current = tracking_uri()
    return current if without_credentials(current) == uri else uri


def existing_store() -> MlflowClient:
    """Client of the store at `tracking_uri`.

    Raises:
        InvalidJob: it is a database that does not exist; MLflow would create it.
    """
    from mlflow_project.uploader import prepare_environment

    uri = tracking_uri()
    if uri.startswith("sqlite:") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise InvalidJob.of("not-in-store", f"there is no MLflow store at {uri}", "set MLFLOW_TRACKING_URI")
    prepare_environment()
    from mlflow import MlflowClient

    return MlflowClient(uri)
