"""How MLflow's client behaves in this project's processes."""

from __future__ import annotations

import logging
import os

VERB = "RLINF_ISAAC_VERB"
"""Variable that names the verb at work, for the processes it starts."""


def prepare_environment() -> None:
    """Set MLflow's client up; call it before MLflow is imported, as often as you like.

    A request is made once: a retry below our own would create a second run where an answer was lost, and MLflow's seven
    block for minutes. Nor does MLflow print links and progress bars between ours.
    """
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for noisy in ("alembic", "mlflow.pyfunc", "mlflow.store.db.utils", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
