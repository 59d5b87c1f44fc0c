"""Finds the checkpoints that the option ``--ckpt-root`` names, where it names no directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_project.lineage.chain_store import MODEL_ID, VERSION
from mlflow_project.tracking.store import existing_store
from mlflow_project.tracking.unreachable import not_in_store
from mlflow_project.vocabulary import MODEL_TAG, PARENT_RUN_TAG, RUN_ID, URI_TAG
from rlinf_isaac.ground.errors import InvalidJob

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def locate_checkpoints(text: str) -> list[Path] | None:
    """The bundles of a registered model, of a model id (``m-...``), or of all checkpoints that a run has made.

    Of a run without checkpoints of its own (`main`) they are those of the first run nested in it that has some. A
    checkpoint that is not on this machine is downloaded, if the store has its bytes.

    Returns:
        Their directories; None if `text` is no name of that kind.

    Raises:
        InvalidJob: the store has no such model or run, or the run has no checkpoints.
        BundleError: a checkpoint is neither on this machine nor in the store.
    """
    from mlflow_project.serving.resolve import resolve_model

    if VERSION.fullmatch(text) or MODEL_ID.fullmatch(text):
        return [resolve_model(text).path]
    if not RUN_ID.fullmatch(text):
        return None
    from mlflow.exceptions import MlflowException

    client = existing_store()
    try:
        run = client.get_run(text)
        models = _models(run) or next(filter(None, map(_models, _nested(client, run))), [])
        if not models:
            cause = f"the run {text} ({run.info.run_name}) has made no checkpoint"
            raise InvalidJob.of("empty-ckpt-root", cause, "name a run of sft, rl or main, or a directory")
        return [_on_disk(client, model) or resolve_model(model).path for model in models]
    except MlflowException as error:
        raise InvalidJob([not_in_store(text, error)]) from error


def _models(run: Run) -> list[str]:
    outputs = run.outputs.model_outputs if run.outputs else []
    return [str(output.model_id) for output in sorted(outputs, key=lambda output: output.step)]


def _nested(client: MlflowClient, run: Run) -> list[Run]:
    found = client.search_runs(
        [run.info.experiment_id],
        f"tags.`{PARENT_RUN_TAG}` = '{run.info.run_id}'",
        order_by=["attributes.start_time ASC"],
        max_results=100,
    )
    return [client.get_run(each.info.run_id) for each in found]  # a search does not return the outputs


def _on_disk(client: MlflowClient, model: str) -> Path | None:
    """Where a checkpoint was made, if it is still there with the same manifest; its bytes are verified later."""
    from rlinf_isaac.checkpoint.bundle import read_bundle

    tags = client.get_logged_model(model).tags
    path = Path(tags.get(URI_TAG, ""))
    try:
        return path if read_bundle(path, verify=False).digest == tags.get(MODEL_TAG) else None
    except (InvalidJob, OSError):
        return None
