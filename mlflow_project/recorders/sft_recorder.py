"""Records a supervised fine-tuning run from the engine's events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlflow_project.lineage.provenance import DatasetInput
from mlflow_project.recorders.logged_checkpoints import (
    UploadWeights,
    log_bundle_files,
    log_model,
    training_tags,
    uploads_weights,
)
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.vocabulary import REMOVED_TAG
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.facts import assumed, unsaid
from rlinf_isaac.ground.events import CheckpointRemoved, CheckpointSaved, Event, FileSaved, Metrics


class SftRecorder:
    """Records the events of `Engine.sft`; call it with every event.

    Metrics are logged as metrics. Every checkpoint becomes a LoggedModel, an output of the run at its step, and its
    files become artifacts below ``checkpoints/<step>/``. If a checkpoint holds the moving average of the weights, the
    raw weights of the same step are logged below ``checkpoints-raw/<step>/``, with ``-raw`` after the model's name.
    A tag says which checkpoints were removed from the disk since.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        model_name: str,
        datasets: Sequence[DatasetInput] = (),
        upload_weights: UploadWeights = "auto",
        checkpoint_name: Callable[[Bundle], str] = lambda bundle: bundle.name,
    ) -> None:
        """Log the datasets of the training. `model_name` comes from `logged_checkpoints.model_name`."""
        self._recorder = recorder
        self._model_name = model_name
        self._upload_weights: UploadWeights = upload_weights
        self._checkpoint_name = checkpoint_name
        self._removed: dict[int, int] = {}
        for dataset in datasets:
            recorder.dataset(dataset)

    def __call__(self, event: Event) -> None:
        """Record one event; only metrics, checkpoints and files are recorded."""
        if isinstance(event, Metrics):
            self._recorder.metrics(event.values, event.step, time_s=event.time)
        elif isinstance(event, CheckpointSaved):
            bundle = read_bundle(event.path, verify=False)
            self._recorder.tags(training_tags(assumed(bundle), unsaid(bundle)))
            suffix = "-raw" if event.path.parent.name == "checkpoints-raw" else ""
            checkpoint = self._checkpoint_name(bundle)
            log_model(self._recorder, bundle, f"{self._model_name}{suffix}", "output", checkpoint)
            log_bundle_files(self._recorder, bundle, f"checkpoints{suffix}/{event.step}", self._upload_weights)
        elif isinstance(event, CheckpointRemoved):
            self._removed[event.step] = event.bytes
            steps = ", ".join(map(str, sorted(self._removed)))
            self._recorder.tags({REMOVED_TAG: f"{steps} ({sum(self._removed.values()) / 1e9:.3g} GB)"})
        elif isinstance(event, FileSaved):
            weights = event.path.suffix == ".safetensors"
            if not weights or uploads_weights(event.path.stat().st_size, self._upload_weights):
                self._recorder.artifact(event.path, event.name)
