"""The run of somebody else's training, from its begin to its end, as its trainer's hooks tell it.

Every method returns soon and none raises: what goes wrong here is said once, and the training goes on. Metrics are
queued (`metrics_writer`); all else, which is rare, is written to the journal at once.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from mlflow_project.callbacks import forward
from mlflow_project.callbacks.continued import opened
from mlflow_project.callbacks.ending import Ending
from mlflow_project.callbacks.found import find_norm_stats_of, find_weights
from mlflow_project.callbacks.job import Job
from mlflow_project.callbacks.metrics_writer import MetricsWriter
from mlflow_project.callbacks.options import Options
from mlflow_project.callbacks.plain import plain
from mlflow_project.lineage.provenance import DatasetInput, digest_tags, provenance_tags
from mlflow_project.tracking import ui
from mlflow_project.tracking.live import LifeFile
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.redact import redact, without_credentials
from mlflow_project.tracking.state import State
from mlflow_project.tracking.sync import sync_command
from mlflow_project.vocabulary import COMMIT_TAG, NOT_KNOWN_TAG, NOTE_TAG, SOURCE_TAG, SOURCE_TYPE_TAG, VERB_TAG

HASHING_S = 300.0
"""Longest wait, at the end of a training, for the digests of its last checkpoint and of its data."""
UPLOAD_S = 10.0
"""Longest wait, at the end, for the upload; it goes on in its own process."""
FLUSH_S = 30.0

logger = logging.getLogger("mlflow_project")
P = ParamSpec("P")


def harmless(
    method: Callable[Concatenate[Training, P], None],
) -> Callable[Concatenate[Training, P], None]:
    """Let a method of `Training` never raise: the first error of each kind is logged."""

    @wraps(method)
    def guarded(self: Training, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # must not stop the training
            self.complain(method.__name__, error)

    return guarded


class Training:
    """Records one training.

    Attributes:
        job: what it is.
        recorder: of its run.
    """

    def __init__(self, job: Job, options: Options) -> None:
        """Begin the run, or continue the one that `job.output` has (`continued`). Raises OSError: the disk refuses."""
        self.job, self._options = job, options
        self._complained: set[tuple[str, type]] = set()
        self._ended = False
        config = plain(job.config)
        git = provenance_tags(job.source or "/nonexistent")
        self._not_known = [] if COMMIT_TAG in git else ["commit"]
        what = {VERB_TAG: job.verb, "engine": job.trainer, SOURCE_TAG: job.verb, SOURCE_TYPE_TAG: "LOCAL"}
        tags = git | what | dict(job.tags) | dict(options.labels.tags)
        self.recorder: Recorder = opened(job, options, tags, config)
        journal = self.recorder.journal
        self._life = LifeFile(journal.path)
        self._writer = MetricsWriter(journal, self._life, job.total)
        self._newest: tuple[int, dict[str, float]] = (-1, {})
        self._checkpoints: set[Path] = set()
        self._saved: tuple[int, str] = (-1, "")
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._do_work, name="mlflow-callback-digests", daemon=True).start()
        self.not_known()
        self._forwarder = self._start_forwarder()
        self.say(f"recording to {without_credentials(journal.header.tracking_uri)}, through {journal.path}")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log scalars at a step. The training loop calls this: it queues them, and does nothing else."""
        if values and not self._ended:
            if step != self._newest[0]:
                self._newest = (step, {})
            self._newest[1].update(values)
            self._writer.put(self.recorder.run, step, values)
            if self._saved[0] == step:  # also those of its checkpoint, which was saved before
                self._writer.put(self._saved[1], step, values)

    @harmless
    def dataset(self, name: str, find: Callable[[float], DatasetInput | None]) -> None:
        """Log the data of the training once `find`, which gets the limit in gigabytes, has read it, in a thread."""

        def read() -> None:
            found = None
            try:
                found = find(self._options.hash_limit_gb)
            except Exception as error:
                self.complain(f"digest of {name}", error)
            if found is None:
                self.not_known("dataset digest")
            else:
                self.recorder.dataset(found)

        self._work.put(read)

    @harmless
    def norm_stats(self, path: Path | None, sha256: str | None, of: str) -> None:
        """Record the norm stats of the training: the file, its digest, and what they come from (a dataset, a base)."""
        if sha256 is None:
            self.not_known("norm stats")
            return
        tags = {"norm_stats.path": str(path), "norm_stats.of": of}
        self.recorder.tags(tags | digest_tags({"norm_stats": sha256}))

    @harmless
    def not_known(self, *facts: str) -> None:
        """Say in the tag ``not_known`` what is not known of the training."""
        self._not_known += [fact for fact in facts if fact not in self._not_known]
        if self._not_known:
            self.recorder.tags({NOT_KNOWN_TAG: ", ".join(self._not_known)})

    @harmless
    def checkpoint(self, path: Path, step: int, command: Callable[[Path, bool], str], *, complete: bool = True) -> None:
        """Record a checkpoint, once, as a nested run; its digests follow when a thread has read the files.

        Args:
            path: its directory.
            step: of the training, as the trainer counts.
            command: (its directory, whether norm stats were found) -> what makes a bundle of it or evaluates it.
            complete: False where the training failed and may have been writing it; that is then "not known".
        """
        path = path.absolute()
        if path in self._checkpoints:
            return
        self._writer.flush(FLUSH_S)
        tags = {"checkpoint.path": str(path), "checkpoint.step": str(step)}
        name = f"checkpoint {path.name}" if path.name.isdigit() else path.name
        nested = self.recorder.start_run(name, tags)
        self._checkpoints.add(path)
        self._saved = step, nested.run
        nested.params({"step": step}, prefix="checkpoint")
        if self._newest[0] == step:
            nested.metrics(self._newest[1], step)
        nested.end("FINISHED")

        def read() -> None:
            tags: dict[str, str] = {}
            missing = [] if complete else ["whether it is complete"]
            try:
                weights = find_weights(path, self._options.hash_limit_gb)
            except OSError:  # most trainers remove old checkpoints
                weights = None
                missing.append("weights digest (removed before it was read)")
            else:
                if weights is None or weights.sha256 is None:
                    missing.append("weights digest")
            if weights is not None:
                tags = {"checkpoint.weights": ", ".join(weights.names[:20]), "checkpoint.bytes": str(weights.size)}
                tags |= digest_tags({"weights": weights.sha256})
            stats = find_norm_stats_of(path)
            if stats is None:
                missing.append("norm stats")
            else:
                tags |= {"checkpoint.norm_stats": str(stats[0])} | digest_tags({"norm_stats": stats[1]})
            told = command(path, stats is not None)
            tags |= {NOTE_TAG: f"    {told}"} | ({NOT_KNOWN_TAG: ", ".join(missing)} if missing else {})
            nested.tags(tags)
            self.say(f"checkpoint of step {step}; next: {told}")

        self._work.put(read)

    @harmless
    def evaluation(
        self, step: int, values: Mapping[str, float], results: Mapping[str, Any], videos: Mapping[str, Path]
    ) -> None:
        """Record an evaluation within the training.

        Args:
            step: of the training.
            values: scalars, with the number of episodes.
            results: JSON-ready, the trainer's own; logged as ``eval/step_<step>/eval_info.json``.
            videos: name -> file.
        """
        self.metrics(values, step)
        self._writer.flush(FLUSH_S)
        place = f"eval/step_{step}"
        self.recorder.text(f"{place}/eval_info.json", json.dumps(plain(results), indent=2) + "\n")
        for name, file in videos.items():
            if file.is_file():
                self.recorder.artifact(file, f"{place}/{name}")

    @harmless
    def end(self, ending: Ending) -> None:
        """End the run; calling it again does nothing. Waits for digests and for the upload, not for ever."""
        if self._ended:
            return
        self._ended = True
        read = threading.Event()
        self._work.put(read.set)
        if not read.wait(HASHING_S):
            self.say("some digests are left out: reading the files took too long")
        if not self._writer.flush(FLUSH_S):
            self.say(f"the disk of {self.recorder.journal.path} did not take the last metrics")
        if ending.trace:
            self.recorder.text("traceback.txt", ending.trace)
        self.recorder.end(ending.status, ending.reason)
        self._life.end()
        self.recorder.journal.close()
        self._say_where()

    def complain(self, what: str, error: Exception) -> None:
        """Say that something could not be recorded, once for each kind of error."""
        kind = (what, type(error))
        if kind not in self._complained:
            self._complained.add(kind)
            logger.warning("%s could not be recorded: %s", what, redact(f"{type(error).__name__}: {error}"))

    def say(self, text: str) -> None:
        """Print a line beside those of the trainer."""
        print(f"rlinf-isaac: {redact(text)}", file=sys.stderr, flush=True)

    def _do_work(self) -> None:
        while True:
            work = self._work.get()
            try:
                work()
            except Exception as error:  # e.g. a full disk
                self.complain("a digest", error)

    def _start_forwarder(self) -> Any:
        path = self.recorder.journal.path
        if self._options.python is None:
            self.say(
                f"no MLflow in this interpreter: the records wait in {path}; where rlinf-isaac is installed,"
                f" {sync_command(path.parent)} uploads them"
            )
            return None
        try:
            return forward.start(self._options.python, path)
        except OSError as error:
            self.complain("the upload", error)
            return None

    def _say_where(self) -> None:
        path = self.recorder.journal.path
        deadline = time.monotonic() + (UPLOAD_S if self._forwarder is not None else 0)
        while self._forwarder is not None and self._forwarder.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        ids = State.load(path).runs.get(self.recorder.run)
        if self._forwarder is not None and self._forwarder.returncode is None:
            self.say(f"the upload goes on in process {self._forwarder.pid}")
        elif self._forwarder is None or self._forwarder.returncode != 0:
            self.say(f"not everything is in MLflow yet, and nothing is lost: {sync_command(path.parent)}")
        if ids is not None:
            self.say(f"run {ui.run_link(ui.base_url(self.recorder.journal.header.tracking_uri), ids[1], ids[0])}")
