"""Resolves ``models:/name@alias`` to a verified bundle on this disk, and downloads it if necessary.

Downloads are cached under ``~/.cache/rlinf-isaac/bundles/<sha256 of the bundle>`` (`rlinf_isaac.ground.cache`). A
cached bundle is hashed again before it is used. Entries are created atomically, and two processes that need the same
bundle download it once. To clear the cache, remove its directories.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_project.lineage.chain_store import MODEL_ID, VERSION
from mlflow_project.tracking.known_stores import missing_store_cure
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.store import is_missing, tracking_uri
from mlflow_project.tracking.unreachable import known_versions, registered_as, unreachable
from mlflow_project.vocabulary import ASSUMED_SINCE, MODEL_TAG, URI_TAG
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.facts import assume_again
from rlinf_isaac.checkpoint.foreign.hub import fetch, is_hub
from rlinf_isaac.ground.atomic import exclusive, new_directory
from rlinf_isaac.ground.cache import cache_directory
from rlinf_isaac.ground.errors import BundleError, InvalidJob

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

ARTIFACT = "bundle"
"""Name of the bundle among the artifacts of the pyfunc model."""
_DOWNLOAD = ".download"
_SHA256 = re.compile("[0-9a-f]{64}")

logger = logging.getLogger("mlflow_project")


def resolve_model(name: str) -> Bundle:
    """The verified bundle of a directory, ``models:/name@alias``, ``models:/name/version``, a model id (``m-...``), or
    ``hf://org/name[@revision][/folder]``, which is downloaded.

    Raises:
        InvalidJob: there is no such model, or it is not a checkpoint of this project.
        BundleError: the bundle is damaged, or is not the one that was registered.
    """
    if is_hub(name):
        return read_bundle(fetch(name).path)
    if not VERSION.fullmatch(name) and not MODEL_ID.fullmatch(name):
        if meant := _registered(name):
            raise InvalidJob.of("unknown-model", f"{name!r} is no directory", f"did you mean {meant}?")
        return read_bundle(name)
    uri = tracking_uri()
    if is_missing(uri):
        raise InvalidJob.of("unknown-model", f"there is no MLflow store at {uri}", missing_store_cure())
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from mlflow_project.tracking.mlflow_environment import prepare_environment

    prepare_environment()
    client = MlflowClient(uri)
    try:
        model = _find(client, name)
        digest = model.tags.get(MODEL_TAG, "")
        if not _SHA256.fullmatch(digest):  # checked, because it becomes the name of a directory
            cause = f"{name} is not a checkpoint of this project: its tag {MODEL_TAG} is {digest!r}, not a sha256"
            raise InvalidJob.of("foreign-model", cause, "register it with `promote`")
        bundle = _local(model, digest) or _cached(model, digest, uri)
        return assume_again(bundle, json.loads(model.tags.get(ASSUMED_SINCE, "{}")))
    except MlflowException as error:
        if problem := unreachable(error):
            raise InvalidJob([problem]) from error
        match = VERSION.fullmatch(name)
        cure = known_versions(client, match["name"]) if match else "check MLFLOW_TRACKING_URI and the id"
        raise InvalidJob.of("unknown-model", f"{name} at {without_credentials(uri)}: {error}", cure) from error


def _registered(name: str) -> str | None:
    """``models:/name@alias`` of a registered model that `name` alone names; None if there is no such model or store."""
    uri = tracking_uri()
    if Path(name).exists() or "/" in name or is_missing(uri):
        return None
    from mlflow import MlflowClient

    return registered_as(MlflowClient(uri), name)


def _find(client: MlflowClient, name: str) -> LoggedModel:
    """The LoggedModel behind a name; its digest must be the one that the model version records."""
    if match := MODEL_ID.fullmatch(name):
        return client.get_logged_model(match[1])
    match = VERSION.fullmatch(name)
    assert match is not None
    version = (
        client.get_model_version_by_alias(match["name"], match["alias"])
        if match["alias"]
        else client.get_model_version(match["name"], match["version"])
    )
    source = MODEL_ID.fullmatch(version.source or "")
    if source is None:
        cause = f"{name} comes from {version.source}, which is not a checkpoint of this project"
        raise InvalidJob.of("foreign-model", cause, "register it with `promote`")
    model = client.get_logged_model(source[1])
    registered = version.tags.get(MODEL_TAG, model.tags.get(MODEL_TAG))
    if registered != model.tags.get(MODEL_TAG):
        cause = f"{name} was registered as {registered}, but its model {source[1]} is {model.tags.get(MODEL_TAG)}"
        raise BundleError.of("model-replaced", cause, "register it again")
    return model


def _local(model: LoggedModel, digest: str) -> Bundle | None:
    """The bundle in the directory where it was made; None if that is not on this machine, or has changed."""
    path = Path(model.tags.get(URI_TAG, ""))
    try:
        bundle = read_bundle(path)
    except (InvalidJob, OSError):
        return None
    return bundle if bundle.digest == digest else None


def _cached(model: LoggedModel, digest: str, uri: str) -> Bundle:
    path = cache_directory("bundles") / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_name(f".{path.name}.lock")):
        if path.exists():
            try:
                return _checked(path, digest)
            except BundleError as error:
                logger.warning("the cached bundle is damaged and is downloaded again: %s", error)
        with new_directory(path, replace=True) as directory:
            _download(model, uri, directory)
            bundle = _checked(directory, digest)
        return replace(bundle, path=path)


def _checked(path: Path, digest: str) -> Bundle:
    bundle = read_bundle(path)
    if bundle.digest != digest:
        cause = f"{path} is the bundle {bundle.digest}, but {digest} was registered"
        raise BundleError.of("model-replaced", cause, "register the checkpoint again")
    return bundle


def _download(model: LoggedModel, uri: str, directory: Path) -> None:
    """Download the bundle from the artifacts of the model into `directory`, which is empty."""
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    def fetch(name: str) -> str:
        return download_artifacts(f"{model.artifact_location}/{name}", dst_path=str(download), tracking_uri=uri)

    download = directory / _DOWNLOAD
    download.mkdir()
    flavor = Model.load(fetch("MLmodel")).flavors.get("python_function", {})
    inside = flavor.get("artifacts", {}).get(ARTIFACT, {}).get("path")
    if inside is None:
        place = model.tags.get(URI_TAG)
        cause = f"the bytes of {model.name} are not in MLflow, and {place} is missing on this machine or has changed"
        raise BundleError.of(
            "model-bytes-missing", cause, "serve or `promote` it on the machine that has the checkpoint"
        )
    for part in Path(fetch(inside)).iterdir():
        part.rename(directory / part.name)
    shutil.rmtree(download)
