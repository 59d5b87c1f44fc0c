"""Who needs a checkpoint: what keeps `sft`, `rl` and `clean` from removing one.

The store knows the versions that are registered, the runs that were trained from a checkpoint, and those that work with
it now. The journals know what is not recorded and uploaded yet (`pending`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.tracking.journal import read_header, read_operations
from mlflow_project.tracking.operations import LogArtifact, LogModel, Operation
from mlflow_project.tracking.state import State
from mlflow_project.vocabulary import MODEL_TAG, URI_TAG, lineage_tag
from rlinf_isaac.checkpoint.bundle import Bundle

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PARENT_LINKS = ("parent", "base")
_PAGE = 1000


def claims_of_store(client: MlflowClient, bundles: Sequence[Bundle]) -> dict[str, str]:
    """Digest -> why the store needs the checkpoint; those that it does not need are left out.

    Raises:
        Exception: whatever the client raises while the store does not answer.
    """
    digests = {bundle.digest: bundle for bundle in bundles}
    found: dict[str, list[str]] = {}
    for digest, words in (*_registered(client, digests), *_used(client, digests)):
        if words not in found.setdefault(digest, []):
            found[digest].append(words)
    return {digest: "; ".join(words) for digest, words in found.items()}


def _registered(client: MlflowClient, digests: Mapping[str, Bundle]) -> Iterator[tuple[str, str]]:
    """Every version of every registered model, whoever has registered it, with or without an alias."""
    aliases: dict[tuple[str, str], list[str]] = {}
    for model in _pages(client.search_registered_models):
        for alias, number in model.aliases.items():
            aliases.setdefault((model.name, str(number)), []).append(f"@{alias}")
    for version in _pages(client.search_model_versions):
        own = _digests_of(client, version, digests)
        names = " ".join(aliases.get((version.name, str(version.version)), ()))
        for digest in own & digests.keys():
            yield digest, f"registered as {version.name} version {version.version}{f' {names}' if names else ''}"


def _digests_of(client: MlflowClient, version: ModelVersion, digests: Mapping[str, Bundle]) -> set[str]:
    """What a version can be of: by its own tag, its LoggedModel's, or the place where it lies."""
    found = {version.tags[MODEL_TAG]} if MODEL_TAG in version.tags else set()
    source = version.source or ""
    model_id = version.model_id or (source.removeprefix("models:/") if source.startswith("models:/m-") else None)
    if not found and model_id:
        tags = _tags_of_model(client, model_id)
        found |= {tags[MODEL_TAG]} if MODEL_TAG in tags else set()
        source = f"{source} {tags.get(URI_TAG, '')}"
    return found | {digest for digest, bundle in digests.items() if str(bundle.path.absolute()) in source}


def _tags_of_model(client: MlflowClient, model_id: str) -> Mapping[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        tags: Mapping[str, str] = client.get_logged_model(model_id).tags
        return tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # somebody has deleted it under the version
            return {}
        raise


def _used(client: MlflowClient, digests: Collection[str]) -> Iterator[tuple[str, str]]:
    experiments = [each.experiment_id for each in _pages(client.search_experiments)]
    if not experiments:
        return

    def runs(query: str) -> Iterator[Any]:
        return _pages(lambda **page: client.search_runs(experiments, query, **page))

    for tag in map(lineage_tag, PARENT_LINKS):
        for run in runs(f"tags.`{tag}` LIKE '%'"):
            yield run.data.tags[tag], f"the run {run.info.run_name} was trained from it"
    for run in runs(f"attributes.status = 'RUNNING' AND tags.`{MODEL_TAG}` LIKE '%'"):
        yield run.data.tags[MODEL_TAG], f"the run {run.info.run_name} works with it"


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(max_results=_PAGE, page_token=token)
        yield from page
        if not (token := page.token):
            return


def pending(journal: Path, bundles: Sequence[Bundle]) -> dict[str, str]:
    """Digest -> what is missing in MLflow of these checkpoints, by the journal of the training that made them."""
    told = {each.digest for each, _ in _operations(journal) if isinstance(each, LogModel)}
    missing = {bundle.digest: "it is not recorded yet" for bundle in bundles if bundle.digest not in told}
    for file in waiting_files(journal):
        for bundle in bundles:
            if file.is_relative_to(bundle.path.absolute()):
                missing[bundle.digest] = "it is not uploaded yet"
    return missing


def waiting_files(journal: Path) -> Iterator[Path]:
    """The files that are still to be uploaded by a journal; each is read only then."""
    state = State.load(journal)
    later = {aside.at for aside in state.aside if not aside.final}
    begin = read_header(journal)[1]
    for operation, end in _operations(journal):
        if isinstance(operation, LogArtifact) and (end > state.offset or begin in later):
            yield Path(operation.source)
        begin = end


def _operations(journal: Path) -> list[tuple[Operation, int]]:
    return read_operations(journal, read_header(journal)[1])[0]
