"""The config that a run has recorded in its params ``cfg/...``."""

from __future__ import annotations

from typing import Any

import yaml

from mlflow_project.tracking.store import existing_store
from mlflow_project.tracking.unreachable import not_in_store
from rlinf_isaac.ground.errors import InvalidJob

_PREFIX = "cfg/"


def config_of_run(run_id: str) -> dict[str, Any]:
    """Key -> value of what the run has recorded of its config, by far not all keys.

    Raises:
        InvalidJob: the store has no such run, or the run has recorded no config.
    """
    from mlflow.exceptions import MlflowException

    client = existing_store()
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise InvalidJob([not_in_store(run_id, error)]) from error
    values = {
        key.removeprefix(_PREFIX).replace("/", "."): yaml.safe_load(text)
        for key, text in run.data.params.items()
        if key.startswith(_PREFIX)
    }
    if not values:
        cause = f"run {run_id} ({run.info.run_name}) has recorded no config"
        raise InvalidJob.of("no-config", cause, "name a run of demos, sft, eval or rl")
    return values
