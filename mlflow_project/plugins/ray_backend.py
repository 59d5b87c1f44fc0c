"""An MLflow project backend: ``mlflow run . -b rlinf-ray --backend-config ray.json -e VERB``.

The entry point is submitted as a job of a Ray cluster and adopts the run that this backend creates. While `mlflow run`
waits, it shows the job's log, stops the job when interrupted, and ends the run with the job's status. The job itself
records to MLflow and does not need the waiting process. If the job is killed while nobody waits, the next submission
ends its run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.exceptions import ExecutionException
from mlflow.projects import utils
from mlflow.projects.backend.abstract_backend import AbstractBackend
from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_BACKEND, MLFLOW_RUN_NAME

from mlflow_project.cli._session import preflight, show_error
from mlflow_project.lineage.provenance import git_tags
from mlflow_project.plugins.ray_config import check_store, check_version, read_config
from mlflow_project.plugins.ray_run import RayRun, connect, end_stale_runs
from mlflow_project.tracking.signals import Signals, Terminated
from mlflow_project.tracking.store import tracking_uri as absolute_tracking_uri
from rlinf_isaac.ground.errors import InvalidJob

NAME = "rlinf-ray"

_FROM_MLFLOW = {
    utils.PROJECT_BUILD_IMAGE,
    utils.PROJECT_DOCKER_ARGS,
    utils.PROJECT_DOCKER_AUTH,
    utils.PROJECT_ENV_MANAGER,
    utils.PROJECT_STORAGE_DIR,
    utils.PROJECT_SYNCHRONOUS,
}
"""Keys that MLflow adds to every backend's config."""


class RayBackend(AbstractBackend):
    """Submits an entry point as a Ray job. `ray_config.RayConfig` has the keys of the backend config."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: Mapping[str, str] | None,
        version: str | None,
        backend_config: Mapping[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> RayRun:
        """Submit the job, and wait for its end unless the caller asked not to.

        Raises:
            InvalidJob: nothing was started. (The command ``mlflow run`` exits with code 2 instead.)
            ExecutionException: the job did not succeed.
        """
        command = _command()
        try:
            return _run(project_uri, entry_point, params or {}, version, backend_config, experiment_id, command)
        except InvalidJob as error:
            if command is None:
                raise
            show_error(error)
            raise SystemExit(error.exit_code) from error


def _run(
    project_uri: str,
    entry_point: str,
    params: Mapping[str, str],
    version: str | None,
    backend_config: Mapping[str, Any],
    experiment_id: str,
    command: click.Context | None,
) -> RayRun:
    tracking_uri = absolute_tracking_uri()
    with preflight() as findings:
        config = read_config({key: value for key, value in backend_config.items() if key not in _FROM_MLFLOW})
        findings.add(check_store(config, tracking_uri))
        findings.add(check_version(config, version))
    project = utils.fetch_and_validate_project(project_uri, version, entry_point, params)
    shell_command = utils.load_project(project).get_entry_point(entry_point).compute_command(params, None)
    jobs = connect(config.address)
    store = MlflowClient()
    end_stale_runs(store, jobs, config.public_address, experiment_id)

    active = utils.get_or_create_run(None, project_uri, experiment_id, project, version, entry_point, params)
    run = RayRun(active.info.run_id, store, jobs, config)
    with Signals() as signals:
        try:
            tags = {MLFLOW_PROJECT_BACKEND: NAME} | (git_tags(project) if config.upload else {})
            if command is not None and command.params.get("run_name"):  # MLflow sets these two after this method
                tags[MLFLOW_RUN_NAME] = command.params["run_name"]
            store.log_batch(run.run_id, tags=[RunTag(*tag) for tag in tags.items()])
            variables = {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_EXPERIMENT_ID": str(experiment_id)}
            run.submit(shell_command, project, variables)
            # The command `mlflow run` does not wait for plugins, so the plugin waits itself.
            if (command is not None and config.wait) or backend_config.get(utils.PROJECT_SYNCHRONOUS):
                succeeded = run.wait()
                # Called from Python, MLflow handles a failure itself, but would set a stopped run to FAILED.
                if not succeeded and (command is not None or run.get_status() == "KILLED"):
                    raise ExecutionException(f"Ray job {run.job_id} did not succeed: run {run.get_status()}")
        except (KeyboardInterrupt, Terminated):
            signals.ignore = True
            run.cancel()
            raise
    return run


def _command() -> click.Context | None:
    """Context of the command ``mlflow run``; None if a Python program called MLflow."""
    context = click.get_current_context(silent=True)
    return context if context is not None and context.command.callback.__module__ == "mlflow.cli" else None
