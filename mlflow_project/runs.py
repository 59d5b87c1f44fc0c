"""The life of a verb's run: adopt or create it, record into it, and never leave it RUNNING.

    with tracked_run("sft", output=Path("result/sft")) as run:
        run.recorder.metrics({"train/loss": 0.1}, step=20)

The block may be left in three ways: normally (FINISHED), by an exception (FAILED, with the tag ``failure.reason``), or by
SIGTERM, SIGINT or KeyboardInterrupt (KILLED). SIGKILL is left to `sync`, which the next verb with the same output does
by itself.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit, urlunsplit

from mlflow_project.journal import Journal
from mlflow_project.recorder import Recorder
from mlflow_project.sync import sync_command
from mlflow_project.uploader import Outcome, Uploader, prepare_environment

DEFAULT_EXPERIMENT = "rlinf-isaac"
PATIENCE_S = 10.0
"""How long a finished verb waits for a server that does not answer."""
KILLED_LIMIT_S = 5.0
"""How long a killed verb goes on sending; job schedulers kill for good some seconds after SIGTERM."""

logger = logging.getLogger("mlflow_project")


class Terminated(SystemExit):
    """SIGTERM (or SIGHUP) arrived. Leaves all blocks in order and ends the process with 128 + signal number."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(128 + number)

    def __str__(self) -> str:
        return self.signal.name


@dataclass
class TrackedRun:
    """What a verb holds while it works, and afterwards.

    Attributes:
        recorder: records into the verb's run.
        uploader: the thread that brings the journal to MLflow, shared with the verb this one runs inside.
        tracking_uri: where the run lives.
        outcome: how far MLflow is, once the outermost verb's block has been left.
    """

    recorder: Recorder
    uploader: Uploader
    tracking_uri: str
    outcome: Outcome | None = None

    def ids(self) -> tuple[str, str] | None:
        """(MLflow run id, experiment id), or None while no server has the run."""
        return self.uploader.run_id(self.recorder.run)


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
    names (set by ``mlflow run``; removed from the environment, so that children do not adopt it too), else the run that is
    active in this process (left for its owner to end), else a new one in the experiment that MLFLOW_EXPERIMENT_ID or
    MLFLOW_EXPERIMENT_NAME names, or ``rlinf-isaac``.

    Args:
        verb: entry point, for the journal's name and the tag ``rlinf_isaac.verb``.
        output: directory of the verb's results; the journal goes to ``<output>/journal``.
        name: name of a new run; the verb when None.
        tags: tags of the run (provenance).
    """
    tags = {"rlinf_isaac.verb": verb} | dict(tags or {})
    if _current is not None:
        recorder = _current.recorder.start_run(name or verb, tags)
        run = TrackedRun(recorder, _current.uploader, _current.tracking_uri)
        with _as_current(run), _closing(recorder, own_status=True):
            yield run
        return

    uri = tracking_uri()
    _import_mlflow(uri)
    run_id, ours = _run_to_adopt()
    journal = Journal.create(Path(output) / "journal", verb, without_credentials(uri))
    recorder = Recorder.start(journal, name or verb, tags=tags, experiment=_experiment(), adopt=run_id)
    run = TrackedRun(recorder, Uploader(journal, uri), uri)
    killed = True
    try:
        with _signals(), _as_current(run), _closing(recorder, own_status=ours):
            yield run
        killed = False
    except Exception:
        killed = False
        raise
    finally:
        run.outcome = run.uploader.close(PATIENCE_S, KILLED_LIMIT_S if killed else None)
        _tell(run.outcome)


def tracking_uri() -> str:
    """Where runs go: MLFLOW_TRACKING_URI, what the host process told mlflow, or ``mlflow.db`` in the working directory."""
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
            client.set_tag(run_id, "failure.reason", reason[:8000])
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
def _closing(recorder: Recorder, *, own_status: bool) -> Iterator[None]:
    """End the run, and what is open inside it, according to how the block is left."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        recorder.end("KILLED", str(error) or "SIGINT")
        raise
    except SystemExit as error:
        failed = error.code not in (None, 0)
        recorder.end(("FAILED" if failed else "FINISHED") if own_status else None, _reason(error) if failed else None)
        raise
    except BaseException as error:
        recorder.end("FAILED" if own_status else None, _reason(error))
        raise
    else:
        recorder.end("FINISHED" if own_status else None)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


@contextmanager
def _signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Terminated`. Only the main thread may, and nohup's choice is respected."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_terminated(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, raise_terminated) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_to_adopt() -> tuple[str | None, bool]:
    """(MLflow run id or None, whether we end the run)."""
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    if run_id is not None:
        return run_id, True
    import mlflow

    active = mlflow.active_run()
    return (active.info.run_id, False) if active is not None else (None, True)


def _experiment() -> str:
    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    return f"id:{number}" if number else os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)


def _import_mlflow(uri: str) -> None:
    """Import what the uploader's thread needs, here: two threads importing torch and mlflow at once trip over the
    half-imported modules they share. Fluent calls of the same process see the same store."""
    prepare_environment()
    import mlflow
    import mlflow.models

    if not uri.startswith("http"):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    mlflow.set_tracking_uri(uri)


def _tell(outcome: Outcome) -> None:
    for refusal in outcome.refused:
        logger.warning("MLflow refused: %s", refusal)
    if outcome.pending:
        logger.warning(
            "%d records are not in MLflow at %s yet (%s). Nothing is lost; bring them there with:\n  %s",
            outcome.pending,
            without_credentials(outcome.tracking_uri),
            outcome.problem,
            sync_command(outcome.journal.parent),
        )
