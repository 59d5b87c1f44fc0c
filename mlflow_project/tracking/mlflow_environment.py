"""Configures MLflow's client for this project's processes."""

from __future__ import annotations

import logging
import os

VERB = "RLINF_ISAAC_VERB"
"""Environment variable with the name of the running verb, for its child processes."""


def prepare_environment() -> None:
    """Configure MLflow's client. Call this before MLflow is imported; calling it again is harmless.

    The client's own retries are turned off: if an answer is lost, a hidden retry would create a second run, and the
    default of seven retries blocks for minutes. MLflow's links and progress bars are turned off as well.
    """
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for noisy in ("alembic", "mlflow.pyfunc", "mlflow.store.db.utils", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def prepare_tracing() -> None:
    """Configure MLflow's client to write each trace in the thread that ends it. MLflow's own background threads would
    hold up the end of a process whose server is gone, for minutes. Call this before the first span."""
    prepare_environment()
    os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"
