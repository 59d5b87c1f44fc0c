"""`tracked_run` creates or adopts the MLflow run of a verb, records into it, and never leaves it RUNNING.

    with tracked_run("sft", output=Path("result/sft")) as run:
        run.recorder.metrics({"train/loss": 0.1}, step=20)

The run ends FINISHED if the block ends normally, FAILED with the tag ``failure.reason`` if it raises, and KILLED on
SIGTERM, SIGHUP or SIGINT. After SIGKILL, the next verb with the same output, or `sync`, ends the run KILLED.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mlflow_project.tracking import labels, system_metrics
from mlflow_project.tracking.answers import told
from mlflow_project.tracking.first_store import ensure_store
from mlflow_project.tracking.followers import Company
from mlflow_project.tracking.journal import Journal
from mlflow_project.tracking.known_stores import remember
from mlflow_project.tracking.live import LifeFile
from mlflow_project.tracking.mlflow_environment import VERB, prepare_environment
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.signals import Signals, Terminated
from mlflow_project.tracking.store import DEFAULT_EXPERIMENT, tracking_uri
from mlflow_project.tracking.sync import sync_command, sync_steps
from mlflow_project.tracking.uploader import Uploader, UploadResult
from mlflow_project.vocabulary import FAILURE_TAG, SOURCE_TAG, SOURCE_TYPE_TAG, VERB_TAG

PATIENCE_S = 10.0
"""Seconds that a finished verb waits for the upload of its records. The next verb, or `sync`, uploads the rest."""
KILLED_LIMIT_S = 5.0
"""Seconds that a killed verb goes on uploading; job schedulers send SIGKILL some seconds after SIGTERM."""

logger = logging.getLogger("mlflow_project")


@dataclass
class TrackedRun:
    """The run of a verb, during the verb and after it.

    Attributes:
        recorder: records into the verb's run.
        uploader: the thread that uploads the journal; a nested verb shares it with the outer one.
        tracking_uri: the store of the run.
        life: the verb's sign of life; a nested verb shares it with the outer one.
        outermost: local uuid of the outermost run.
        outcome: state of the upload after the outermost block has ended; None before.
        nested: whether this run is nested in the run of another verb.
    """

    recorder: Recorder
    uploader: Uploader
    tracking_uri: str
    life: LifeFile
    outermost: str
    outcome: UploadResult | None = None
    nested: bool = False

    def ids(self) -> tuple[str, str] | None:
        """(MLflow run id, experiment id), or None if the server does not have the run within ten seconds."""
        return self.uploader.ids(self.recorder.run)

    def delivered(self) -> bool:
        """Wait until the server has everything recorded so far; False if it does not answer."""
        return self.uploader.delivered()


_current: TrackedRun | None = None
_noted: list[TrackedRun] | None = None


@contextmanager
def noted_runs() -> Iterator[list[TrackedRun]]:
    """The outermost runs that begin inside the block, in a list that grows meanwhile."""
    global _noted
    outer, _noted = _noted, []
    try:
        yield _noted
    finally:
        _noted = outer


def current_run() -> TrackedRun | None:
    """The innermost tracked run of this process; None outside of `tracked_run`."""
    return _current


@contextmanager
def tracked_run(
    verb: str,
    *,
    output: Path,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[TrackedRun]:
    """Record the block as one MLflow run.

    The first of these that applies is used:

    1. inside another `tracked_run` of this process: a new run, nested in that one;
    2. the run that MLFLOW_RUN_ID names (``mlflow run`` sets it). The variable is removed, so that child processes do
       not adopt the run as well. It gets `name`, unless somebody has named it (``--run-name``);
    3. the run that is active in this process; its owner ends it;
    4. a new run in the experiment that `labels` names, or of MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME, by
       default ``rlinf-isaac``.

    Args:
        verb: the entry point; used in the journal's name and in the tag ``rlinf_isaac.verb``.
        output: directory of the verb's results; the journal is written to ``<output>/journal``.
        name: name of a new run; the verb when None. `labels` comes first.
        tags: tags of the run (provenance), besides those of `labels`.
    """
    tags = {VERB_TAG: verb} | dict(tags or {})
    source = {SOURCE_TAG: f"rlinf-isaac {verb}", SOURCE_TYPE_TAG: "LOCAL"}
    if _current is not None:
        recorder = _current.recorder.start_run(name or verb, tags | source)
        outer = _current
        run = TrackedRun(recorder, outer.uploader, outer.tracking_uri, outer.life, outer.outermost, nested=True)
        with _as_current(run), _closing(recorder):
            yield run
        return

    given = labels.current()
    name, tags = given.name or name, tags | dict(given.tags)
    uri = tracking_uri()
    _import_mlflow(uri)
    _ensure_store(uri)
    adopt, active = _run_to_adopt()
    directory = Path(output) / "journal"
    journal = Journal.create(directory, verb, without_credentials(uri))
    remember(without_credentials(uri), directory.parent)
    with Signals() as signals, _environment(uri, verb):
        own = tags if adopt else tags | source  # an adopted run has its source tags already
        recorder = Recorder.start(
            journal,
            name or verb,
            tags=own,
            experiment=given.experiment or experiment_chosen() or DEFAULT_EXPERIMENT,
            adopt=adopt,
            inherited=source,
        )
        # When idle, the uploader also replays older journals: runs that a killed verb left RUNNING are ended.
        uploader = Uploader(journal, uri, others=sync_steps(directory))
        run = TrackedRun(recorder, uploader, uri, LifeFile(journal.path), recorder.run)
        company = Company(run)
        if _noted is not None:
            _noted.append(run)
        try:
            with _as_current(run), system_metrics.measured(journal), _closing(recorder, leave_to_owner=active):
                yield run
        except (KeyboardInterrupt, Terminated):
            signals.ignore = True
            # Usually a no-op, as `_closing` has ended the run, unless a second signal interrupted it.
            recorder.end("KILLED", leave_to_owner=active)
            run.outcome = run.uploader.close(KILLED_LIMIT_S)
            raise
        finally:
            run.life.end()
            run.outcome = run.outcome or _patient_close(run.uploader, signals)
            company.close(KILLED_LIMIT_S if signals.ignore else PATIENCE_S)
            _warn_of_missing_records(run.outcome)


def fail_adopted_run(reason: str) -> None:
    """Tag the run created by ``mlflow run`` with the reason why the verb could not start, and end it FAILED.

    Does nothing without MLFLOW_RUN_ID, because no run exists then. Gives up if the server does not answer soon.
    """
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    if run_id is None:
        return

    def tag() -> None:
        try:
            prepare_environment()
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri())
            client.set_tag(run_id, FAILURE_TAG, reason[:8000])
            client.set_terminated(run_id, "FAILED")
        except Exception as error:  # not fatal: the reason is printed on the terminal as well
            logger.debug("could not tag run %s: %s", run_id, error)

    thread = threading.Thread(target=tag, daemon=True)
    thread.start()
    thread.join(10.0)


@contextmanager
def _as_current(run: TrackedRun) -> Iterator[None]:
    global _current
    outer, _current = _current, run
    try:
        yield
    finally:
        _current = outer


@contextmanager
def _closing(recorder: Recorder, *, leave_to_owner: bool = False) -> Iterator[None]:
    """End the run and its open nested runs when the block ends; the status depends on how it ends."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        recorder.end("KILLED", str(error) or "SIGINT", leave_to_owner=leave_to_owner)
        raise
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in (None, 0):
            recorder.end("FINISHED", leave_to_owner=leave_to_owner)
        else:
            recorder.end("FAILED", f"{type(error).__name__}: {error}"[:2000], leave_to_owner=leave_to_owner)
        raise
    else:
        recorder.end("FINISHED", leave_to_owner=leave_to_owner)


def _patient_close(uploader: Uploader, signals: Signals) -> UploadResult:
    """Upload what remains; a signal shortens the time limit."""
    try:
        return uploader.close(PATIENCE_S)
    except (KeyboardInterrupt, Terminated):
        signals.ignore = True
        return uploader.close(KILLED_LIMIT_S)


def _run_to_adopt() -> tuple[str | None, bool]:
    """MLflow id of the run to adopt (or None), and whether it is active in this process, so that its owner ends it."""
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    if run_id is not None:
        return run_id, False
    import mlflow

    active = mlflow.active_run()
    return (active.info.run_id, True) if active is not None else (None, False)


def experiment_chosen() -> str | None:
    """The experiment that the environment names, its name or ``id:<id>``; None if it names none."""
    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    return f"id:{number}" if number else os.environ.get("MLFLOW_EXPERIMENT_NAME")


@contextmanager
def _environment(uri: str, verb: str) -> Iterator[None]:
    """Set the variables that tell child processes and fluent MLflow calls the store and the running verb."""
    values = {"MLFLOW_TRACKING_URI": uri, VERB: verb}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _import_mlflow(uri: str) -> None:
    """Import in the main thread what the uploader's thread needs. If one thread imports torch while another imports
    mlflow, each sees modules that the other has imported only half."""
    prepare_environment()
    import_module("mlflow.models")
    if not uri.startswith("http"):
        import_module("mlflow.store.tracking.sqlalchemy_store")


def _ensure_store(uri: str) -> None:
    """Create a missing database in the main thread; a killed verb would not wait for the uploader's thread to do it."""
    try:
        ensure_store(uri)
    except Exception as error:  # tracking must not stop the verb; the uploader tries again and warns
        logger.debug("no store at %s yet: %s", without_credentials(uri), error)


def _warn_of_missing_records(outcome: UploadResult) -> None:
    for refusal in outcome.refused:
        logger.warning("%s", told(refusal))
    if outcome.refused:
        command = sync_command(outcome.journal.parent, "--again")
        logger.warning("The journal keeps the refused records. Once the cause is fixed, retry with:\n  %s", command)
    if outcome.pending:
        logger.warning(
            "%d records are not in MLflow at %s yet (%s). Nothing is lost; upload them with:\n  %s",
            outcome.pending,
            outcome.tracking_uri,
            outcome.problem,
            sync_command(outcome.journal.parent),
        )
