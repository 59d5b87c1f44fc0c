"""Applies journal operations to an MLflow server, through `MlflowClient` only (no fluent global state).

Every operation may be applied twice: what a crash leaves between an effect and its bookkeeping is found again by the
tag ``rlinf_isaac.run_id`` (runs) or ``checkpoint.sha256`` (LoggedModels), metrics keep the journal's timestamps so that
the store drops a repeated row, and artifacts are overwritten by themselves.

An operation that MLflow will never accept (a param that changes, a file that is gone) is set aside with its reason and
does not hold up the others. Everything else that goes wrong raises `Unreachable`, to be tried again later.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.operations import (
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
from mlflow_project.state import State

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_TAG = "rlinf_isaac.run_id"
MODEL_TAG = "checkpoint.sha256"
MODEL_TYPE = "vla-checkpoint"

BATCHED = (LogParams, LogMetrics, SetTags)
"""Operations that travel together in `log_batch`."""

_NEVER = {
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_STATE",
    "ENDPOINT_NOT_FOUND",
    "NOT_IMPLEMENTED",
    "NOT_FOUND",
}
"""MLflow error codes that the same request will get again, however often it is sent."""


class Unreachable(Exception):
    """The tracking server did not take an operation now; it may later."""


class _Refused(Exception):
    """An operation that cannot be applied, now or later. The message says why."""


class Replica:
    """One journal's view of an MLflow server."""

    def __init__(self, client: MlflowClient, state: State) -> None:
        self._client = client
        self._state = state

    def apply(self, operations: Sequence[Operation]) -> None:
        """Apply either any number of batched operations (`BATCHED`), or a single other one.

        Raises:
            Unreachable: try the same operations again later.
        """
        try:
            if len(operations) == 1 and not isinstance(operations[0], BATCHED):
                self._guarded(self._apply_one, operations[0])
            else:
                self._guarded(self._apply_batch, operations)
        except _Refused as refusal:
            if len(operations) == 1:
                self._state.refused.append(f"{type(operations[0]).__name__}: {refusal}")
                return
            # One bad entry makes the store refuse the whole batch: find it, keep the rest.
            for operation in operations:
                self.apply([operation])

    def _guarded(self, function: Any, argument: Any) -> None:
        """Call, and sort what goes wrong into `_Refused` and `Unreachable`."""
        from mlflow.exceptions import MlflowException

        try:
            function(argument)
        except _Refused:
            raise
        except MlflowException as error:
            if error.error_code in _NEVER:
                raise _Refused(_first_line(error)) from error
            cause = error.__context__  # what requests raised; MLflow's own text is a paragraph
            raise Unreachable(type(cause).__name__ if isinstance(cause, OSError) else _first_line(error)) from error
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            if isinstance(error, OSError):  # requests' JSONDecodeError and friends are ValueErrors too
                raise Unreachable(_first_line(error)) from error
            raise _Refused(f"{type(error).__name__}: {_first_line(error)}") from error
        except Exception as error:
            raise Unreachable(f"{type(error).__name__}: {_first_line(error)}") from error

    def _apply_batch(self, operations: Sequence[Operation]) -> None:
        """One `log_batch` per run (the client splits it at MLflow's limits of 1000 metrics, 100 params, 100 tags)."""
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
                        raise _Refused(f"param {key} cannot change from {params[key].value!r} to {text!r}")
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
        elif isinstance(operation, EndRun) and operation.status is not None:
            self._client.set_terminated(self._run(operation.run)[0], operation.status, operation.time_ms)

    def _start_run(self, operation: StartRun) -> None:
        from mlflow.entities import RunTag

        tags = dict(operation.tags) | {RUN_TAG: operation.run}
        run = self._adopted(operation.adopt) if operation.adopt else None
        if run is not None:
            if run.info.status != "RUNNING":
                self._client.update_run(run.info.run_id, status="RUNNING")
            self._client.log_batch(run.info.run_id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)
        else:
            if operation.parent is not None:
                parent, experiment = self._run(operation.parent)
                tags["mlflow.parentRunId"] = parent
            else:
                experiment = self._experiment(operation.experiment or "Default")
            found = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{operation.run}'", max_results=1)
            run = found[0] if found else None
            if run is None:
                run = self._client.create_run(experiment, operation.time_ms, tags, operation.name)
        self._state.runs[operation.run] = (run.info.run_id, run.info.experiment_id)

    def _adopted(self, run_id: str) -> Any:
        """The run to adopt; None when this server does not have it (a stale MLFLOW_RUN_ID): then one is created."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code in _NEVER:
                return None
            raise

    def _experiment(self, name: str) -> str:
        """Id of the experiment `name` (made when missing) or ``id:<id>``."""
        from mlflow.exceptions import MlflowException

        if name.startswith("id:"):
            return self._client.get_experiment(name.removeprefix("id:")).experiment_id
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return self._client.create_experiment(name)
            except MlflowException:  # another process was faster; or it failed, then the next line does
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        return experiment.experiment_id

    def _log_artifact(self, operation: LogArtifact) -> None:
        source = Path(operation.source)
        if not source.is_file():
            raise _Refused(f"{source} is gone, it could not be uploaded as {operation.target}")
        directory, _, name = operation.target.rpartition("/")
        run_id, experiment = self._run(operation.run)
        # The client names an artifact after the local file; a link gives it the name it shall have.
        with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
            link = Path(scratch) / name
            if operation.fill_in:
                link.write_text(self._fill_in(source.read_text(encoding="utf-8"), experiment), encoding="utf-8")
            else:
                link.symlink_to(source.absolute())
            self._client.log_artifact(run_id, str(link), directory or None)

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
        model_id = self._find_or_create_model(operation, run_id, experiment)
        self._state.models[f"{experiment}/{operation.digest}"] = model_id
        if operation.role == "input":
            self._client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
            return
        outputs = self._client.get_run(run_id).outputs
        if outputs is None or model_id not in {
            output.model_id for output in outputs.model_outputs
        }:  # the store refuses a repetition
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=operation.step)])

    def _find_or_create_model(self, operation: LogModel, run_id: str, experiment: str) -> str:
        """What `mlflow.create_external_model` does, on this client, after looking for the model by its digest."""
        from mlflow.models import Model

        found = self._client.search_logged_models([experiment], f"tags.`{MODEL_TAG}` = '{operation.digest}'")
        if found:
            model = found[0]
        else:
            model = self._client.create_logged_model(
                experiment,
                name=operation.name,
                source_run_id=run_id if operation.role == "output" else None,
                tags=dict(operation.tags) | {MODEL_TAG: operation.digest, "mlflow.model.isExternal": "true"},
                params=dict(operation.params),
                model_type=MODEL_TYPE,
            )
        if str(model.status) != "READY":
            # Without an MLmodel file the model registry does not take the model.
            description = Model(
                artifact_path=model.artifact_location,
                model_uuid=model.model_id,
                model_id=model.model_id,
                run_id=model.source_run_id,
                metadata={"mlflow.model.isExternal": True},
            )
            with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
                description.save(str(Path(scratch) / "MLmodel"))
                self._client.log_model_artifacts(model.model_id, scratch)
            self._client.finalize_logged_model(model.model_id, "READY")
        return model.model_id

    def _run(self, run: str) -> tuple[str, str]:
        """(MLflow run id, experiment id) of a local uuid."""
        try:
            return self._state.runs[run]
        except KeyError:
            raise _Refused(f"run {run} was never created") from None

    def _fill_in(self, value: str, experiment: str) -> str:
        """Put MLflow's ids where a tag value names a run or the experiment."""
        value = value.replace("{{experiment}}", experiment)
        return re.sub(r"\{\{run:([0-9a-f]{32})\}\}", lambda match: self._run(match[1])[0], value)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:500]
