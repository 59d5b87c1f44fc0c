"""Serves MLflow's UI of a local store as a child process, and finds the view that a person wants to see."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from mlflow_project.tracking import ui
from mlflow_project.tracking.address import check_address
from mlflow_project.tracking.known_stores import known_outputs
from mlflow_project.tracking.store import is_missing, nearest_store, sqlite_path
from mlflow_project.vocabulary import COMPARISON_PAGE, PARENT_RUN_TAG, RUN_ID, VERB_TAG, VERDICT_TAG
from rlinf_isaac.ground.child_process import Child
from rlinf_isaac.ground.errors import InvalidJob, RlinfIsaacError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

COMPARING = ("main", "eval", "rl", "compare")
"""Verbs whose runs compare checkpoints."""
_STARTS_WITHIN_S = 120.0
_STOPS_WITHIN_S = 5.0
_POLL_S = 0.2
_PORTS = 20


class UiFailed(RlinfIsaacError):
    """MLflow's server did not start."""


def free_port(wanted: int | None, host: str) -> int:
    """The port to serve on: the wanted one; without one the first free one from MLflow's default on.

    Raises:
        InvalidJob: the wanted port is in use.
    """
    if wanted is not None:
        if not _is_free(wanted, host):
            cause = f"port {wanted} of {host} is in use"
            raise InvalidJob.of("address", cause, "choose another --port, or leave it out")
        return wanted
    for port in range(ui.DEFAULT_PORT, ui.DEFAULT_PORT + _PORTS):
        if _is_free(port, host):
            return port
    with closing(socket.socket()) as any_port:
        any_port.bind((host, 0))
        return int(any_port.getsockname()[1])


@contextmanager
def serving(tracking_uri: str, host: str, port: int) -> Iterator[Child]:
    """MLflow's server of a local store, for the with block; it has ended when the block is left, in whatever way.

    Without job execution MLflow starts 2 processes instead of 11.
    """
    program = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri]
    command = [sys.executable, "-m", "mlflow_project.watching.guard", *program]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    child = Child([*command, "--host", host, "--port", str(port), "--workers", "1"], environment=environment)
    try:
        yield child
    finally:
        child.close()
        child.stop(_STOPS_WITHIN_S)


def wait_for(child: Child, address: str) -> None:
    """Return when the server answers.

    Raises:
        UiFailed: it has ended, or does not answer within two minutes; with its last words.
    """
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while not _answers(f"{address}/health"):
        if child.ending is not None or time.monotonic() > deadline:
            words = child.output(2000).decode(errors="replace").strip().splitlines()[-5:]
            why = f"ended with {child.ending}" if child.ending else f"has not answered for {_STARTS_WITHIN_S:.0f} s"
            raise UiFailed("\n".join([f"MLflow's server {why}:", *words]))
        time.sleep(_POLL_S)


def is_served(address: str, run_id: str) -> bool:
    """Whether an MLflow server at this address has this run, so that no second one is needed."""
    return _answers(f"{address}/api/2.0/mlflow/runs/get?run_id={run_id}")


def find_store(subject: str | None) -> tuple[str, Run | None]:
    """The store to show, and the run to open in it; None if the store has no run of this project.

    Args:
        subject: a run's id, its first digits, a link that has one, or a run's name. None: the run of the store at hand
            that compared checkpoints last.

    Raises:
        InvalidJob: there is no store, or none on this machine has this run.
    """
    from mlflow import MlflowClient

    uri = nearest_store()
    if subject is None:
        _expect(uri)
        return uri, _newest(MlflowClient(uri))
    for each in dict.fromkeys([uri, *(known.uri for known in known_outputs())]):
        if not is_missing(each) and (run := _find(MlflowClient(each), subject)):
            return each, run
    _expect(uri)
    cause = f"no store that was used on this machine has a run {subject}"
    raise InvalidJob.of("not-in-store", cause, "`rlinf-isaac ls` lists runs; MLFLOW_TRACKING_URI names another store")


def view_of(client: MlflowClient, address: str, run: Run | None) -> str:
    """The link of what a run is best looked at by: its comparison page, the checkpoints that it compares, or itself."""
    if run is None:
        return f"{address}/#/experiments"
    run_id, experiment_id, verb = run.info.run_id, run.info.experiment_id, run.data.tags.get(VERB_TAG)
    if verb in COMPARING:
        with suppress(Exception):  # the artifacts may lie elsewhere than the store
            if any(file.path == COMPARISON_PAGE for file in client.list_artifacts(run_id)):
                return ui.artifact_link(address, experiment_id, run_id, COMPARISON_PAGE)
        if verb != "main" and run.info.status != "RUNNING":
            return ui.comparison_link(address, experiment_id, run_id)
    return ui.run_link(address, experiment_id, run_id)


def tunnel(port: int) -> str:
    """The command that makes the UI reachable from another machine."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    host = connection[2] if len(connection) == 4 else socket.gethostname()
    return f"ssh -L {port}:127.0.0.1:{port} {getpass.getuser()}@{host}"


def _expect(uri: str) -> None:
    if is_missing(uri):
        path = sqlite_path(uri)
        cause = f"there is no MLflow store: neither {path}, nor one in a directory above, and none was used lately"
        raise InvalidJob.of("not-in-store", cause, "go to the directory that has mlflow.db, or set MLFLOW_TRACKING_URI")


def _newest(client: MlflowClient) -> Run | None:
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = list(client.search_runs(experiments, max_results=1000, order_by=["attributes.start_time DESC"]))
    by_id = {run.info.run_id: run for run in runs}
    above = compared = next((run for run in runs if VERDICT_TAG in run.data.tags), None)
    # Up to the outermost run that compares; between that of `main` and one before and after `rl` is one that does not.
    while above and (above := by_id.get(above.data.tags.get(PARENT_RUN_TAG, ""))):
        if VERDICT_TAG in above.data.tags:
            compared = above
    ours = [run for run in runs if VERB_TAG in run.data.tags and PARENT_RUN_TAG not in run.data.tags]
    comparing = [run for run in ours if run.data.tags[VERB_TAG] in COMPARING]
    return compared or next(iter([*comparing, *ours]), None)


def _find(client: MlflowClient, subject: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    match = RUN_ID.search(subject)
    with suppress(MlflowException):
        if match:
            return client.get_run(match[0])
        experiments = [each.experiment_id for each in client.search_experiments()]
        runs = client.search_runs(experiments, max_results=1000, order_by=["attributes.start_time DESC"])
        return next((run for run in runs if run.info.run_name == subject or _begins(run, subject)), None)
    return None


def _begins(run: Run, subject: str) -> bool:
    return len(subject) >= 6 and run.info.run_id.startswith(subject)


def _is_free(port: int, host: str) -> bool:
    return not list(check_address(host, port))


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False
