"""An MLflow run that is executed by a job of a Ray cluster: submits, follows and stops the job, and ends the run."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mlflow import MlflowClient
from mlflow.projects.submitted_run import SubmittedRun

from mlflow_project.cli._session import stderr
from mlflow_project.plugins.ray_config import ADDRESS_VARIABLES, STOP_SECONDS, RayConfig
from mlflow_project.tracking.redact import clean_urls, without_credentials
from mlflow_project.vocabulary import FAILURE_TAG
from rlinf_isaac.ground.errors import InvalidJob

STATUS = {"SUCCEEDED": "FINISHED", "FAILED": "FAILED", "STOPPED": "KILLED"}
"""Final status of a Ray job -> status of the MLflow run."""

_POLL_SECONDS = 1.0
_LOG_SECONDS = 10.0
_REQUEST_SECONDS = 60.0


class RayRun(SubmittedRun):
    """A run and its job. `wait`, `get_status` and `cancel` also end the run when they see that the job has ended.

    Attributes:
        job_id: id of the job, also in the run's tag ``ray.job_id``.
    """

    def __init__(self, run_id: str, store: MlflowClient, jobs: Any, config: RayConfig) -> None:
        self.job_id = f"mlflow-{run_id}"
        self._run_id, self._store, self._jobs, self._config = run_id, store, jobs, config
        self._status: str | None = None
        self._log: threading.Thread | None = None
        self._over = threading.Event()

    @property
    def run_id(self) -> str:
        return self._run_id

    def submit(self, command: str, project: str, variables: Mapping[str, str]) -> None:
        """Submit `command` as a job. Ends the run if Ray refuses the job.

        Args:
            command: shell command of the entry point.
            project: directory of the project on this machine.
            variables: environment variables of the job.

        Raises:
            InvalidJob: Ray refuses the job.
        """
        config = self._config
        try:
            self._jobs.submit_job(
                entrypoint=config.entrypoint(self._run_id, command),
                submission_id=self.job_id,
                runtime_env=config.job_environment(project, variables),
                metadata={"mlflow_run_id": self._run_id},
                entrypoint_num_cpus=config.entrypoint_num_cpus,
                entrypoint_num_gpus=config.entrypoint_num_gpus,
                entrypoint_resources=dict(config.entrypoint_resources),
            )
        except Exception as error:  # e.g. the upload is too large, or the runtime environment is invalid
            self._end("FAILED", f"Ray refused the job: {error}")
            cure = "correct the backend config; .gitignore and runtime_env.excludes keep files from being uploaded"
            raise InvalidJob.of("ray-refused", f"{config.public_address} refused the job: {error}", cure) from error
        for key, value in {"ray.job_id": self.job_id, "ray.address": config.public_address}.items():
            self._store.set_tag(self._run_id, key, value)
        stderr.print(f"Ray job {self.job_id}, {config.public_address}/#/jobs/{self.job_id}")

    def wait(self) -> bool:
        """Show the job's log until the job ends; returns whether it succeeded.

        If the job server does not answer for `patience_s`, the run is set to FAILED. If only the server has died, the
        job still ends the run itself when it is done.
        """
        return self._follow() == "FINISHED"

    def cancel(self) -> None:
        """Stop the job with everything it started, and wait until it has ended.

        Ray stops a pending job only when the job starts, so this does not wait for a pending job.
        """
        limit_s = STOP_SECONDS + 15.0
        stderr.print(f"stopping Ray job {self.job_id}")
        with suppress(*_no_answer()):
            self._jobs.stop_job(self.job_id)
            if self._jobs.get_job_status(self.job_id).name == "PENDING":
                limit_s = 0.0
        self._follow(limit_s, unknown="KILLED")

    def get_status(self) -> str:
        """RUNNING (also while the job waits for resources), FINISHED, FAILED or KILLED.

        Raises:
            OSError, RuntimeError: the job server does not answer.
        """
        if self._status is None:
            job = self._jobs.get_job_info(self.job_id)
            if not job.status.is_terminal():
                return "RUNNING"
            self._end(STATUS[job.status.name], job.message)
        assert self._status is not None
        return self._status

    def _follow(self, limit_s: float = math.inf, unknown: str = "FAILED") -> str:
        """Show the log until the job has ended or the time limit is reached; returns the run's status.

        Args:
            limit_s: time limit in seconds.
            unknown: status of the run if the server does not know the job.
        """
        if self._status is not None:
            return self._status
        if self._log is None:
            self._log = threading.Thread(target=self._show_log, daemon=True)
            self._log.start()
        begin = heard = time.monotonic()
        said = None
        while time.monotonic() - begin < limit_s:
            try:
                job = self._jobs.get_job_info(self.job_id)
            except _no_answer() as error:
                if "status code 404" in str(error):
                    reason = f"{self._config.public_address} has no job {self.job_id} (any more)"
                    return self._end(unknown, reason, seen=False)
                if time.monotonic() - heard > self._config.patience_s:
                    silent = (
                        f"{self._config.public_address} has not answered for {self._config.patience_s:.0f} s ({error})"
                    )
                    return self._end("FAILED", f"{silent}; if the job goes on, it ends this run itself", seen=False)
            else:
                heard = time.monotonic()
                if job.status.is_terminal():
                    self._over.set()
                    self._log.join(_LOG_SECONDS)
                    return self._end(STATUS[job.status.name], job.message)
                if job.status.name == "PENDING" and job.message != said:
                    said = job.message
                    stderr.print(said, lines=True)
            time.sleep(_POLL_SECONDS)
        return self._end("KILLED", "Ray was told to stop the job, but has not stopped it yet", seen=False)

    def _end(self, status: str, reason: str | None, *, seen: bool = True) -> str:
        self._over.set()
        self._status = end_run(self._store, self._run_id, status, reason, seen=seen)
        if self._status != "FINISHED":
            stderr.print(f"run {self._run_id} {self._status}: {reason}", lines=True)
        return self._status

    def _show_log(self) -> None:
        """Print the job's log; after a lost connection, continue where it broke off."""
        shown = 0

        async def tail() -> None:
            nonlocal shown
            position = 0
            async for text in self._jobs.tail_job_logs(self.job_id):
                news = text[max(0, shown - position) :]
                position += len(text)
                shown = max(shown, position)
                sys.stdout.write(news)
                sys.stdout.flush()

        while True:
            with suppress(Exception):  # `_follow` reports a server that does not answer
                asyncio.run(tail())
            if self._over.wait(_POLL_SECONDS):
                return


def end_run(store: MlflowClient, run_id: str, status: str, reason: str | None, *, seen: bool = True) -> str:
    """End a run with the status of its job, unless the entry point has ended it already; returns the final status.

    Args:
        seen: whether Ray has reported this status. Then a FINISHED run whose job failed afterwards becomes FAILED.
    """
    run = store.get_run(run_id)
    is_contradicted = seen and (run.info.status == "FINISHED") != (status == "FINISHED")
    if run.info.status != "RUNNING" and not is_contradicted:
        return run.info.status
    if status != "FINISHED" and FAILURE_TAG not in run.data.tags:
        store.set_tag(run_id, FAILURE_TAG, (reason or "Ray says nothing")[-8000:])
    store.set_terminated(run_id, status)
    return status


def end_stale_runs(store: MlflowClient, jobs: Any, address: str, experiment_id: str) -> None:
    """End the runs of an experiment whose jobs were killed while nobody waited for them.

    This includes the jobs of an earlier cluster at this address.
    """
    query = f"attributes.status = 'RUNNING' and tags.`ray.address` = '{address}'"
    if not (runs := store.search_runs([experiment_id], query)):
        return
    jobs_by_id = {job.submission_id: job for job in jobs.list_jobs()}
    for run in runs:
        job = jobs_by_id.get(run.data.tags["ray.job_id"])
        if job is None:
            end_run(store, run.info.run_id, "FAILED", f"{address} does not know its job any more", seen=False)
        elif job.status.is_terminal():
            end_run(store, run.info.run_id, STATUS[job.status.name], job.message)


def connect(address: str) -> Any:
    """Ray's client of the job server at `address`.

    Raises:
        InvalidJob: Ray's client is not installed, or no job server answers there.
    """
    try:
        import aiohttp  # noqa: F401  # Ray's job client needs it, but plain `ray` does not install it
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        cure = "pip install 'rlinf-isaac[ray]' here"
        raise InvalidJob.of("no-ray", f"the client of Ray's job server cannot be imported: {error}", cure) from error

    class Client(JobSubmissionClient):
        def _do_request(self, *args: Any, **kwargs: Any) -> Any:  # Ray's own method has no timeout
            return super()._do_request(*args, **{"timeout": _REQUEST_SECONDS, **kwargs})

    logging.getLogger(JobSubmissionClient.__module__).setLevel(logging.WARNING)  # else it logs the end of every log
    # Ray prefers these variables to the address that is passed.
    hidden = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        return Client(address)
    except Exception as error:  # e.g. nothing listens there, or it is another server, or a token is needed
        cure = "name a cluster with a job server (ray[default]); one with a token needs RAY_AUTH_MODE, RAY_AUTH_TOKEN"
        raise InvalidJob.of(
            "ray-unreachable",
            f"no Ray job server answers at {without_credentials(address)}: {clean_urls(str(error))}",
            cure,
        ) from error
    finally:
        os.environ.update(hidden)


def _no_answer() -> tuple[type[Exception], ...]:
    """Exceptions of Ray's client if no server listens (OSError), the server answers with an error, or the token is
    wrong."""
    from ray.exceptions import RayError

    return (OSError, RuntimeError, RayError)
