"""Finds the directory or file that the option ``--base`` names, and downloads it if necessary."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlflow_project.vocabulary import RUN_ID
from rlinf_isaac.checkpoint.foreign.base import Named
from rlinf_isaac.checkpoint.foreign.hub import fetch, is_hub, parse
from rlinf_isaac.data.lerobot.resolve import most_like
from rlinf_isaac.ground.errors import InvalidJob

_URI = re.compile(r"([a-z][a-z0-9+.-]*):/.*|m-[0-9a-f]{32}")


def locate_base(text: str) -> Named:
    """Locate the base that `text` names.

    Args:
        text: a path, ``hf://org/name[/folder][@revision]``, ``models:/name@alias``, ``models:/name/version``, a model
            id (``m-...``), or a run id, which stands for the run's last checkpoint.

    Raises:
        InvalidJob: the base does not exist, or cannot be downloaded from the hub.
    """
    if is_hub(text):
        fetched, place = fetch(text), parse(text)
        return Named(fetched.path, "/".join(filter(None, (place.repo, place.folder))), fetched.revision)
    if Path(text).exists():
        path = Path(text)
        return Named(path, _name_of(path))
    if RUN_ID.fullmatch(text):
        text = _last_model(text)
    if _URI.fullmatch(text):
        from mlflow_project.lineage.chain_store import MODEL_ID, VERSION
        from mlflow_project.serving.resolve import resolve_model

        if VERSION.fullmatch(text) or MODEL_ID.fullmatch(text):
            return Named(resolve_model(text).path, text)
    cause = f"--base {text}: there is no such file or directory"
    cure = "name a checkpoint's directory or file, hf://ORG/NAME, models:/NAME@ALIAS, m-..., or a run's id"
    if (near := _near(Path(text))) is not None:
        cure = f"did you mean {near}?"
    raise InvalidJob.of("missing-base", cause, cure)


def _near(path: Path) -> Path | None:
    """The entry of the parent directory whose name is most similar to that of `path`; None if none is similar."""
    try:
        names = os.listdir(path.parent)
    except (OSError, ValueError):
        return None
    return most_like(path, names)


def _name_of(path: Path) -> str:
    """The last two parts of a path, which describe a checkpoint (``pi0_base/params``, ``my_run/30000``)."""
    return "/".join(path.absolute().parts[-2:]).lstrip("/")


def _last_model(run_id: str) -> str:
    """Id of the last LoggedModel that a run has made."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from mlflow_project.tracking.known_stores import missing_store_cure
    from mlflow_project.tracking.mlflow_environment import prepare_environment
    from mlflow_project.tracking.store import is_missing, tracking_uri
    from mlflow_project.tracking.unreachable import unreachable

    uri = tracking_uri()
    if is_missing(uri):
        raise InvalidJob.of("missing-base", f"there is no MLflow store at {uri}", missing_store_cure())
    prepare_environment()
    try:
        run = MlflowClient(uri).get_run(run_id)
    except MlflowException as error:
        if problem := unreachable(error):
            raise InvalidJob([problem]) from error
        cause = f"{uri} has no run {run_id} ({str(error).partition(chr(10))[0]})"
        raise InvalidJob.of("missing-base", cause, "check MLFLOW_TRACKING_URI and the id") from error
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        cause = f"the run {run_id} made no checkpoint"
        raise InvalidJob.of("missing-base", cause, "name a run of sft or rl, or a checkpoint")
    return str(max(outputs, key=lambda output: output.step).model_id)
