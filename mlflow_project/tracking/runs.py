"""The life of a verb's run: adopt or create it, record into it, and never leave it RUNNING.

    with tracked_run("sft", output=Path("result/sft")) as run:
        run.recorder.metrics({"train/loss": 0.1}, step=20)

The block may be left in three ways: normally (FINISHED), by an exception (FAILED, with the tag ``failure.reason``), or
by SIGTERM, SIGHUP or SIGINT (KILLED). After SIGKILL the next verb with the same output, or `sync`, ends the run KILLED.
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

from mlflow_project.tracking.answers import told
from mlflow_project.tracking.first_store import ensure_store
from mlflow_project.tracking.journal import Journal
from mlflow_project.tracking.mlflow_environment import VERB, prepare_environment
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.signals import Signals, Terminated
from mlflow_project.tracking.store import tracking_uri
from mlflow_project.tracking.sync import sync_command, sync_steps
from mlflow_project.tracking.uploader import Outcome, Uploader
from mlflow_project.vocabulary import FAILURE_TAG, VERB_TAG

DEFAULT_EXPERIMENT = "rlinf-isaac"
PATIENCE_S = 10.0
"""How long a verb that is done waits for its records to be sent. What is left then is for the next verb, or `sync`."""
KILLED_LIMIT_S = 5.0
"""How long a killed verb goes on sending; job schedulers kill for good some seconds after SIGTERM."""

logger = logging.getLogger("mlflow_project")


@dataclass
class TrackedRun:
    """What a verb holds while it works, and afterwards.

    Attributes:
        recorder: records into the verb's run.
        uploader: the thread that brings the journal to MLflow, shared with the verb this one runs inside.
        tracking_uri: where the run lives.
        outcome: how far MLflow is, once the outermost verb's block has been left.
        nested: whether it is part of another verb's run.
    """

    recorder: Recorder
    uploader: Uploader
    tracking_uri: str
    outcome: Outcome | None = None
    nested: bool = False

    def ids(self) -> tuple[str, str] | None:
        """(MLflow run id, experiment id), or None when no server has the run soon."""
        return self.uploader.ids(self.recorder.run)

    def delivered(self) -> bool:
        """Wait until the server has all that was recorded; False when it does not answer."""
        return self.uploader.delivered()


_current: TrackedRun | None = None


@contextmanager
def tracked_run(
    verb: str,
    *,
    output: Path,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[TrackedRun]:
    """Record the block as one MLflow run.

    Inside another `tracked_run` of this process it is nested in that one. Otherwise it is the run that MLFLOW_RUN_ID
    names (set by ``mlflow run``; removed from the environment, so that children do not adopt it too), else the run that
    is active in this process (left for its owner to end), else a new one in the experiment that MLFLOW_EXPERIMENT_ID
    or MLFLOW_EXPERIMENT_NAME names, or ``rlinf-isaac``.

    Args:
        verb: entry point, for the journal's name and the tag ``rlinf_isaac.verb``.
        output: directory of the verb's results; the journal goes to ``<output>/journal``.
        name: name of a new run; the verb when None.
        tags: tags of the run (provenance).
    """
    tags = {VERB_TAG: verb} | dict(tags or {})
    source = {"mlflow.source.name": f"rlinf-isaac {verb}", "mlflow.source.type": "LOCAL"}
    if _current is not None:
        recorder = _current.recorder.start_run(name or verb, tags | source)
        run = TrackedRun(recorder, _current.uploader, _current.tracking_uri, nested=True)
        with _as_current(run), _closing(recorder):
            yield run
        return

    uri = tracking_uri()
    _import_mlflow(uri)
    _ensure_store(uri)
    adopt, active = _run_to_adopt()
    directory = Path(output) / "journal"
    journal = Journal.create(directory, verb, without_credentials(uri))
    with Signals() as signals, _environment(uri, verb):
        if adopt is None:  # one that exists says by itself where it comes from
            tags |= source
        recorder = Recorder.start(journal, name or verb, tags=tags, experiment=_experiment(), adopt=adopt)
        # What a killed predecessor left RUNNING is put right on the way.
        run = TrackedRun(recorder, Uploader(journal, uri, others=sync_steps(directory)), uri)
        try:
            with _as_current(run), _closing(recorder, leave_to_owner=active):
                yield run
        except (KeyboardInterrupt, Terminated):
            signals.ignore = True
            recorder.end("KILLED", leave_to_owner=active)  # unless a second signal came before this was recorded
            run.outcome = run.uploader.close(KILLED_LIMIT_S)
            raise
        finally:
            run.outcome = run.outcome or _patient_close(run.uploader, signals)
            _tell(run.outcome)


def fail_adopted_run(reason: str) -> None:
    """Tag the run of ``mlflow run`` with why the verb could not start; the launcher marks it FAILED.

    Does nothing without MLFLOW_RUN_ID (no run exists then, and none shall), or when the server does not answer soon.
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
        except Exception as error:  # the user reads the reason on the terminal in any case
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
    """End the run, and what is open inside it, according to how the block is left."""
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


def _patient_close(uploader: Uploader, signals: Signals) -> Outcome:
    """Send what is left; a signal makes it short."""
    try:
        return uploader.close(PATIENCE_S)
    except (KeyboardInterrupt, Terminated):
        signals.ignore = True
        return uploader.close(KILLED_LIMIT_S)


def _run_to_adopt() -> tuple[str | None, bool]:
    """(MLflow id of the run to use or None, whether it is active in this process, so that others end it)."""
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    if run_id is not None:
        return run_id, False
    import mlflow

    active = mlflow.active_run()
    return (active.info.run_id, True) if active is not None else (None, False)


def _experiment() -> str:
    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    return f"id:{number}" if number else os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)


@contextmanager
def _environment(uri: str, verb: str) -> Iterator[None]:
    """Children and fluent calls inside the block see the store that the block records to, and that it is at work."""
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
    """Import what the uploader's thread needs, here: two threads importing torch and mlflow at once trip over the
    half-imported modules they share."""
    prepare_environment()
    import_module("mlflow.models")
    if not uri.startswith("http"):
        import_module("mlflow.store.tracking.sqlalchemy_store")


def _ensure_store(uri: str) -> None:
    """Make the first database here, before the uploader's thread, which a killed verb does not wait for."""
    try:
        ensure_store(uri)
    except Exception as error:  # tracking does not stop the work: the uploader tries again, and says so
        logger.debug("no store at %s yet: %s", without_credentials(uri), error)


def _tell(outcome: Outcome) -> None:
    for refusal in outcome.refused:
        logger.warning("%s", told(refusal))
    if outcome.refused:
        command = sync_command(outcome.journal.parent, "--again")
        logger.warning("The journal keeps what was refused. To try it again, when the cause is gone:\n  %s", command)
    if outcome.pending:
        logger.warning(
            "%d records are not in MLflow at %s yet (%s). Nothing is lost; bring them there with:\n  %s",
            outcome.pending,
            outcome.tracking_uri,
            outcome.problem,
            sync_command(outcome.journal.parent),
        )
