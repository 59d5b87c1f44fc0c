"""Records calls of a policy server as MLflow traces: how long they took, what was asked, and what was answered.

The server only puts a call into a queue of limited size, and goes on. A thread writes the traces, at most so many a
minute: a robot asks ten times a second, all day long. What does not fit, and what the store does not take, is lost and
counted; a trace is no result.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_project.lineage.models_of import models_of
from mlflow_project.serving.batcher import Answer
from mlflow_project.serving.observation import Request
from mlflow_project.tracking.mlflow_environment import prepare_tracing
from mlflow_project.tracking.runs import experiment_chosen
from mlflow_project.tracking.store import DEFAULT_EXPERIMENT, tracking_uri
from mlflow_project.vocabulary import MODEL_TAG
from rlinf_isaac.checkpoint.bundle import Bundle

if TYPE_CHECKING:
    from mlflow import MlflowClient

SPAN = "policy"
WAITING = 256
"""Calls that may wait for the thread."""
FAREWELL_S = 10.0
"""Seconds that a stopping server gives the thread to write what waits."""
PAUSE_S = 30.0
"""Seconds without an attempt after the store has failed."""

logger = logging.getLogger("mlflow_project")


class Call(NamedTuple):
    """An answered call; times in unix nanoseconds. `began` is when its message had arrived."""

    request: Request
    answer: Answer
    began: int
    ended: int


class Traces:
    """Writes traces until `close`.

    Attributes:
        written, lost: numbers of calls.
    """

    def __init__(self, bundle: Bundle, per_minute: int) -> None:
        """Start the thread.

        Args:
            bundle: the checkpoint that is served; its LoggedModel, where the store has it, gets the traces.
            per_minute: most traces a minute, at least 1. As many may come at once.
        """
        self.written = self.lost = 0
        self._bundle, self._rate = bundle, per_minute / 60
        self._most = self._left = float(per_minute)
        self._seen = time.monotonic()
        self._calls: queue.Queue[Call | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._follow, name="traces", daemon=True)
        self._thread.start()

    def note(self, request: Request, answer: Answer, took_s: float) -> None:
        """Record a call that has just been answered after `took_s` seconds; returns at once."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._seen) * self._rate)
        self._seen = now
        if self._left < 1:
            return
        self._left -= 1
        ended = time.time_ns()
        try:
            self._calls.put_nowait(Call(request, answer, ended - round(1e9 * took_s), ended))
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Write what waits, for `FAREWELL_S` at most."""
        try:
            self._calls.put(None, timeout=FAREWELL_S)
        except queue.Full:
            return
        self._thread.join(FAREWELL_S)

    def _follow(self) -> None:
        place: _Place | None = None
        quiet_until = 0.0
        while (call := self._calls.get()) is not None:
            if time.monotonic() < quiet_until:
                self.lost += 1
                continue
            try:
                place = place or _Place.of(self._bundle)
                place.write(call)
                self.written += 1
            except Exception as error:  # the store does not answer: serving does not depend on it
                self.lost += 1
                logger.warning("no traces for %.0f s: %s", PAUSE_S, error)
                quiet_until = time.monotonic() + PAUSE_S


class _Place:
    """Where traces go: an experiment, and the LoggedModel of the checkpoint."""

    def __init__(self, bundle: Bundle, experiment: str, model: str | None) -> None:
        self._name, self._digest = bundle.name, bundle.digest
        self._experiment, self._model = experiment, model

    @classmethod
    def of(cls, bundle: Bundle) -> _Place:
        """The experiment that the environment names; else that of the checkpoint's model; else the default one."""
        prepare_tracing()
        import mlflow

        mlflow.set_tracking_uri(tracking_uri())
        client = mlflow.MlflowClient()
        model = next(iter(models_of(client, bundle.digest)), None)
        chosen = experiment_chosen()
        if chosen is None and model is not None:
            return cls(bundle, model.experiment_id, model.model_id)
        return cls(
            bundle, _experiment(client, chosen or DEFAULT_EXPERIMENT), model.model_id if model is not None else None
        )

    def write(self, call: Call) -> None:
        """Write one trace: a span for the call, and in it one for the time in the queue and one for the model."""
        import mlflow

        request, answer = call.request, call.answer
        shown: dict[str, Any] = {
            "prompt": request.prompt,
            "state": [round(float(number), 5) for number in request.state],
            "images": {slot: list(image.shape) for slot, image in request.images.items()},
            "noise_key": list(request.noise_key),
        }
        span = mlflow.start_span_no_context(
            SPAN,
            span_type="AGENT",
            inputs=shown,
            tags={"checkpoint": self._name, MODEL_TAG: self._digest},
            metadata={"mlflow.modelId": self._model} if self._model else None,
            experiment_id=self._experiment,
            start_time_ns=call.began,
        )
        span.set_attributes({"batch": answer.batch, "queue_ms": 1e3 * answer.queue_s, "infer_ms": 1e3 * answer.infer_s})
        # The model's call ends shortly before the answer is packed; decoding is what comes before the queue.
        inferred = call.ended
        began = max(call.began, inferred - round(1e9 * answer.infer_s))
        queued = max(call.began, began - round(1e9 * answer.queue_s))
        for name, start, end in (("queue", queued, began), ("model", began, inferred)):
            child = mlflow.start_span_no_context(name, span_type="TASK", parent_span=span, start_time_ns=start)
            child.end(end_time_ns=end)
        first = [round(float(number), 5) for number in answer.actions[0]]
        span.set_outputs({"shape": list(answer.actions.shape), "first_action": first})
        span.end(end_time_ns=call.ended)


def _experiment(client: MlflowClient, name: str) -> str:
    if name.startswith("id:"):
        return name.removeprefix("id:")
    experiment = client.get_experiment_by_name(name)
    return client.create_experiment(name) if experiment is None else experiment.experiment_id
