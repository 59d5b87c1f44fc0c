"""The LoggedModel of a checkpoint: external (MLflow stores no weights), and one for each bundle in an experiment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.tracking.operations import LogModel
from mlflow_project.tracking.unique import Models, settle
from mlflow_project.vocabulary import MODEL_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_TYPE = "vla-checkpoint"
_EXTERNAL = "mlflow.model.isExternal"


def ensure_model(client: MlflowClient, operation: LogModel, run_id: str, experiment: str) -> str:
    """Id of the LoggedModel with the bundle's digest; created if missing, as by `mlflow.create_external_model`."""

    def create() -> None:
        client.create_logged_model(
            experiment,
            name=operation.name,
            source_run_id=run_id if operation.role == "output" else None,
            tags=dict(operation.tags) | {MODEL_TAG: operation.digest, _EXTERNAL: "true"},
            params=dict(operation.params),
            model_type=MODEL_TYPE,
        )

    model_id = settle(models_of(client, experiment, operation.digest, create))
    model = client.get_logged_model(model_id)
    if str(model.status) != "READY":
        _finish(client, model)
    return model_id


def models_of(client: MlflowClient, experiment: str, digest: str, create: Any = None) -> Models:
    """All LoggedModels of an experiment for one bundle."""
    return Models(client, experiment, MODEL_TAG, digest, create)


def _finish(client: MlflowClient, model: Any) -> None:
    """Log the MLmodel file, which the model registry requires, and set the model's status to READY."""
    from mlflow.models import Model

    description = Model(
        artifact_path=model.artifact_location,
        model_uuid=model.model_id,
        model_id=model.model_id,
        run_id=model.source_run_id,
        metadata={_EXTERNAL: True},
    )
    with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
        description.save(str(Path(scratch) / "MLmodel"))
        client.log_model_artifacts(model.model_id, scratch)
    client.finalize_logged_model(model.model_id, "READY")
