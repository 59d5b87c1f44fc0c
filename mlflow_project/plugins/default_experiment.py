"""An MLflow default experiment: `mlflow run` of this project records where `rlinf-isaac` does, unless told otherwise.

Without it `mlflow run` would create its run in MLflow's experiment ``Default`` before a verb can say anything, and
MLflow has no way to move a run. MLflow asks the plugin only if neither ``--experiment-name`` nor ``--experiment-id``
nor a variable of MLflow names an experiment, and only where this package is installed in the environment of `mlflow`
itself, as it is with ``--env-manager local``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mlflow.tracking.default_experiment.abstract_context import DefaultExperimentProvider

from mlflow_project.tracking.store import DEFAULT_EXPERIMENT, artifact_location, tracking_uri

PROJECT_NAME = "rlinf-isaac"
"""What the file MLproject of this project says as ``name``."""


class ProjectExperiment(DefaultExperimentProvider):
    """The experiment of `tracked_run` for the command ``mlflow run`` of a checkout of this project."""

    def in_context(self) -> bool:
        """Whether this process is ``mlflow run DIRECTORY`` with a directory of this project."""
        return runs_this_project(sys.argv)

    def get_experiment_id(self) -> str:
        """Id of the experiment, which is created if it is missing."""
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient()
        experiment = client.get_experiment_by_name(DEFAULT_EXPERIMENT)
        if experiment is None:
            try:
                return client.create_experiment(
                    DEFAULT_EXPERIMENT, artifact_location(tracking_uri(), DEFAULT_EXPERIMENT)
                )
            except MlflowException:  # another process has created it; after any other failure it is still missing
                experiment = client.get_experiment_by_name(DEFAULT_EXPERIMENT)
                if experiment is None:
                    raise
        return experiment.experiment_id


def runs_this_project(arguments: list[str]) -> bool:
    """Whether a command line is ``mlflow run`` with the directory of this project among its arguments."""
    command, *rest = arguments or [""]
    if Path(command).name not in ("mlflow", "__main__.py") or "run" not in rest[:1]:
        return False
    # The directory may stand before or after options, whose values are no directories of this project.
    return any(_is_this_project(argument) for argument in rest[1:] if not argument.startswith("-"))


def _is_this_project(argument: str) -> bool:
    directory = argument.removeprefix("file://").partition("#")[0]
    try:
        with open(Path(directory) / "MLproject", encoding="utf-8") as file:
            said = (line.partition(":") for line in file)
            return any(key == "name" and value.strip() == PROJECT_NAME for key, _, value in said)
    except (OSError, ValueError):
        return False
