"""Applies journal operations to an MLflow store. It uses `MlflowClient` only, not the fluent API's global state.

Every operation may be applied twice, and by several clients at once: runs and LoggedModels are found again by the tags
``rlinf_isaac.run_id`` and ``checkpoint.sha256`` (`unique.py`), metrics keep the journal's timestamps so that the store
drops a repeated row, and uploading an artifact again overwrites it with the same bytes.

The experiment of the first run identifies the store. While another database answers at the store's address,
`OtherStore` is raised: no operation counts as refused or as applied.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.tracking.answers import Contended, Refused, Unreachable, sorted_errors
from mlflow_project.tracking.generated_names import was_generated
from mlflow_project.tracking.logged_models import ensure_model, models_of
from mlflow_project.tracking.operations import (
    EndRun,
    LogArtifact,
    LogDataset,
    LogMetrics,
    LogModel,
    LogParams,
    Operation,
    SetExperimentTag,
    SetTags,
    StartRun,
)
from mlflow_project.tracking.state import State
from mlflow_project.tracking.store import artifact_location
from mlflow_project.tracking.unique import Runs, settle, tidy
from mlflow_project.vocabulary import PARENT_RUN_TAG, fill_in

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_TAG = "rlinf_isaac.run_id"
ENTRY_POINT_TAG = "mlflow.project.entryPoint"
"""Tag of the runs that `mlflow run` creates."""

BATCHED = (LogParams, LogMetrics, SetTags)
"""Operations that are sent together by `log_batch`."""

_LOOKS = 8
"""How often an operation is tried when another client does the same at the same time."""


class OtherStore(Unreachable):
    """Another database answers at the store's address than the one that the journal was begun in."""


class Replica:
    """Applies the operations of one journal to one store.

    Args:
        client: client of the store.
        uri: URI of the store.
        state: progress of the journal in the store; `apply` updates it.
    """

    def __init__(self, client: MlflowClient, uri: str, state: State) -> None:
        self._client, self._uri, self._state = client, uri, state
        self._remote = uri.startswith("http")

    def apply(self, operations: Sequence[Operation]) -> None:
        """Apply either any number of batched operations (`BATCHED`), or a single operation of another type.

        Raises:
            Refused: MLflow will never accept one of the operations. A `StartRun` is never refused.
            Unreachable: the same operations have to be tried again later.
        """
        for look in range(_LOOKS):
            try:
                return self._apply(operations)
            except Contended:
                if look == _LOOKS - 1:
                    raise
                time.sleep(
                    random.uniform(0, 0.02 * 2**look)
                )  # random back-off, so that two clients do not collide again
            except Refused as refusal:
                with sorted_errors(remote=self._remote):
                    self._expect_store()
                if isinstance(operations[0], StartRun):
                    raise Unreachable(f"the run cannot be created: {refusal}") from refusal
                raise

    def _apply(self, operations: Sequence[Operation]) -> None:
        with sorted_errors(remote=self._remote):
            operation = operations[0]
            if isinstance(operation, BATCHED):
                self._apply_batch(operations)
                return
            if isinstance(operation, StartRun | LogModel):
                self._expect_store()  # before: nothing must be created in another store
            self._apply_one(operation)
            self._expect_store()  # after: the operation must not have gone to another store

    def _expect_store(self) -> None:
        """Raise `OtherStore` unless the journal was begun in the store that answers."""
        from mlflow.exceptions import MlflowException

        if self._state.store is None:
            return
        number, created = self._state.store
        try:
            if (self._client.get_experiment(number).creation_time or 0) == created:
                return
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        raise OtherStore("another store answers at this address than the one that has the first of these records")

    def _apply_batch(self, operations: Sequence[Operation]) -> None:
        """Call `log_batch` once per run (the client splits it at MLflow's limits of 1000 metrics, 100 params, 100
        tags)."""
        from mlflow.entities import Metric, Param, RunTag

        batches: dict[str, tuple[list[Metric], dict[str, Param], dict[str, RunTag]]] = {}
        for operation in operations:
            metrics, params, tags = batches.setdefault(operation.run, ([], {}, {}))
            run_id, experiment = self._run(operation.run)
            if isinstance(operation, LogMetrics):
                model = operation.model and self._state.models.get(f"{experiment}/{operation.model}")
                name, digest = operation.dataset or (None, None)
                for key, value in operation.values.items():
                    metrics.append(
                        Metric(key, value, operation.time_ms, operation.step, model or None, name, digest, run_id)
                    )
            elif isinstance(operation, LogParams):
                for key, text in operation.params.items():
                    if params.setdefault(key, Param(key, text)).value != text:
                        raise Refused(f"param {key} cannot change from {params[key].value!r} to {text!r}")
            elif isinstance(operation, SetTags):
                tags |= {key: RunTag(key, self._fill_in(value, experiment)) for key, value in operation.tags.items()}
        for run, (metrics, params, tags) in batches.items():
            run_id, _ = self._run(run)
            self._client.log_batch(run_id, metrics, list(params.values()), list(tags.values()), synchronous=True)

    def _apply_one(self, operation: Operation) -> None:
        if isinstance(operation, StartRun):
            self._start_run(operation)
        elif isinstance(operation, SetExperimentTag):
            _, experiment = self._run(operation.run)
            key, value = (self._fill_in(text, experiment) for text in (operation.key, operation.value))
            self._client.set_experiment_tag(experiment, key, value)
        elif isinstance(operation, LogArtifact):
            self._log_artifact(operation)
        elif isinstance(operation, LogDataset):
            self._log_dataset(operation)
        elif isinstance(operation, LogModel):
            self._log_model(operation)
        elif isinstance(operation, EndRun):
            self._end_run(operation)

    def _start_run(self, operation: StartRun) -> None:
        from mlflow.entities import RunTag

        tags = dict(operation.tags) | {RUN_TAG: operation.run}
        adopted = self._adopted(operation.adopt) if operation.adopt else None
        if adopted is not None:
            run_id, experiment = adopted.info.run_id, adopted.info.experiment_id
            if adopted.info.status != "RUNNING":
                self._client.update_run(run_id, status="RUNNING")
            if ENTRY_POINT_TAG in adopted.data.tags and was_generated(adopted.info.run_name):
                self._client.update_run(run_id, name=operation.name)
            self._client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)
        else:
            if operation.parent is not None:
                parent, experiment = self._run(operation.parent)
                tags[PARENT_RUN_TAG] = parent
            else:
                experiment = self._experiment(operation.experiment or "Default")
            create = (experiment, operation.time_ms, tags, operation.name)
            run_id = settle(self._runs(operation.run, experiment, create))
            if operation.run in self._state.runs:  # it begins once more: its training is resumed in the same journal
                self._client.update_run(run_id, status="RUNNING")
        if self._state.store is None:
            created = self._client.get_experiment(experiment).creation_time
            self._state.store = (experiment, created or 0)
        self._state.runs[operation.run] = (run_id, experiment)

    def _end_run(self, operation: EndRun) -> None:
        run_id, experiment = self._run(operation.run)
        if operation.status is not None:
            self._client.set_terminated(run_id, operation.status, operation.time_ms)
        tidy(self._runs(operation.run, experiment))
        if operation.run == next(iter(self._state.runs)):  # the outermost run, which ends last
            for name in self._state.models:
                experiment, _, digest = name.partition("/")
                tidy(models_of(self._client, experiment, digest))

    def _runs(self, run: str, experiment: str, create: tuple[Any, ...] = ()) -> Runs:
        return Runs(self._client, experiment, RUN_TAG, run, lambda: self._client.create_run(*create))

    def _adopted(self, run_id: str) -> Any:
        """The run to adopt; None if the store does not have it (a stale MLFLOW_RUN_ID), so that one is created."""
        try:
            with sorted_errors(remote=self._remote):
                return self._client.get_run(run_id)
        except Refused:
            return None

    def _experiment(self, name: str) -> str:
        """Id of the experiment `name`, which is created if missing, or of ``id:<id>``."""
        from mlflow.exceptions import MlflowException

        if name.startswith("id:"):
            return self._client.get_experiment(name.removeprefix("id:")).experiment_id
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return self._client.create_experiment(name, artifact_location(self._uri, name))
            except MlflowException:  # another process has created it; after any other failure it is still missing
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        return experiment.experiment_id

    def _log_artifact(self, operation: LogArtifact) -> None:
        source = Path(operation.source)
        if not source.is_file():
            raise Refused(f"{source} does not exist any more, so it cannot be uploaded as {operation.target}")
        directory, _, name = operation.target.rpartition("/")
        run_id, experiment = self._run(operation.run)
        if operation.weights_of is not None and self._made_with(operation, experiment, run_id):
            return
        # The client names an artifact after the local file, so a link with the wanted name is uploaded.
        with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
            link = Path(scratch) / name
            if operation.fill_in:
                link.write_text(self._fill_in(source.read_text(encoding="utf-8"), experiment), encoding="utf-8")
            else:
                link.symlink_to(source.absolute())
            self._client.log_artifact(run_id, str(link), directory or None)

    def _made_with(self, weights: LogArtifact, experiment: str, run_id: str) -> bool:
        """Whether another run, which made the checkpoint of these weights, has them among its artifacts."""
        model_id = self._state.models.get(f"{experiment}/{weights.weights_of}")
        model = None if model_id is None else self._client.get_logged_model(model_id)
        if model is None or not model.source_run_id or model.source_run_id == run_id:
            return False
        wanted = (weights.target.rpartition("/")[2], Path(weights.source).stat().st_size)
        step = model.params.get("step")
        return any(
            (file.path.rpartition("/")[2], file.file_size) == wanted
            for directory in ("checkpoints", "checkpoints-raw")
            for file in self._client.list_artifacts(model.source_run_id, f"{directory}/{step}")
        )

    def _log_dataset(self, operation: LogDataset) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            operation.name,
            operation.digest,
            operation.source_type,
            operation.source,
            schema=operation.schema,
            profile=operation.profile,
        )
        tags = [InputTag("mlflow.data.context", operation.context)]
        self._client.log_inputs(self._run(operation.run)[0], datasets=[DatasetInput(dataset, tags)])

    def _log_model(self, operation: LogModel) -> None:
        from mlflow.entities import LoggedModelInput, LoggedModelOutput

        run_id, experiment = self._run(operation.run)
        model_id = ensure_model(self._client, operation, run_id, experiment)
        self._state.models[f"{experiment}/{operation.digest}"] = model_id
        if operation.role == "input":
            self._client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
            return
        outputs = self._client.get_run(run_id).outputs
        if outputs is None or model_id not in {
            output.model_id for output in outputs.model_outputs
        }:  # the store refuses the same output twice
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=operation.step)])

    def _run(self, run: str) -> tuple[str, str]:
        """(MLflow run id, experiment id) of a local uuid."""
        try:
            return self._state.runs[run]
        except KeyError:
            raise Refused(f"run {run} was never created") from None

    def _fill_in(self, value: str, experiment: str) -> str:
        """Replace the placeholders of runs and the experiment in `value` by MLflow's ids."""
        return fill_in(value, experiment, lambda run: self._run(run)[0])
