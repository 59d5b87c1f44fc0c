"""Builds chains from an MLflow store: models, the runs that made them, and the evaluations that used them.

Changes nothing. `mlflow_project.recorders.logged_checkpoints.bundle_tags` writes the tags that are read here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.lineage.chain import Node, State, broken, checkpoint_node
from mlflow_project.lineage.models_of import models_of
from mlflow_project.tracking.unreachable import known_versions, not_in_store, registered_as
from mlflow_project.vocabulary import (
    BASE_URI_TAG,
    COMMIT_TAG,
    DIRTY_TAG,
    EPISODES,
    LINEAGE_TAG,
    MISMATCH_OF_TAG,
    MISMATCH_TAG,
    MODEL_TAG,
    PARENT_RUN_TAG,
    RUN_ID,
    SUCCESS,
    SUCCESS_BEFORE,
    URI_TAG,
    VERB_TAG,
    lineage_tag,
)
from rlinf_isaac.ground.errors import InvalidJob, Problem

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, LoggedModelOutput, Run

MODEL_ID = re.compile(r"(?:models:/)?(m-[0-9a-f]{32})")
VERSION = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")


class Chains:
    """Builds chains from an MLflow store.

    Args:
        client: client of the store.
        dataset: directory of the dataset, if the recorded path is wrong or unknown.
    """

    def __init__(self, client: MlflowClient, dataset: Path | None = None) -> None:
        self._client = client
        self._dataset = dataset
        self._seen: set[tuple[Path, str]] = set()
        self._experiments = [experiment.experiment_id for experiment in client.search_experiments()]

    def of(self, subject: str) -> Node:
        """The chain of a run id, a model id (``m-...``), or ``models:/name/version`` or ``models:/name@alias``.

        Raises:
            InvalidJob: `subject` is none of these, or the store does not have it.
        """
        from mlflow.exceptions import MlflowException

        try:
            if match := MODEL_ID.fullmatch(subject):
                return self._model(self._client.get_logged_model(match[1]))
            if match := VERSION.fullmatch(subject):
                return self._version(**match.groupdict())
            if RUN_ID.fullmatch(subject):
                return self._run(self._client.get_run(subject))
        except MlflowException as error:
            problem = not_in_store(subject, error)
            if problem.code == "not-in-store" and (match := VERSION.fullmatch(subject)):
                problem = replace(problem, cure=known_versions(self._client, match["name"]))
            raise InvalidJob([problem]) from error
        cause = f"{subject!r} is not a checkpoint directory, run id, model id or model version"
        cure = "name a bundle's directory, a run id, m-..., models:/name/1 or models:/name@alias"
        if meant := registered_as(self._client, subject):
            cure = f"did you mean {meant}?"
        raise InvalidJob.of("unknown-subject", cause, cure)

    def of_bundle(self, path: Path) -> Node:
        """The chain of a bundle on disk: the chain of its model if the store has one, else only that of its files."""
        from rlinf_isaac.checkpoint.bundle import read_bundle

        try:
            models = self._models(read_bundle(path, verify=False).digest)
        except InvalidJob:
            models = []
        return self._model(models[0], path) if models else self.checkpoint(path, None)

    def checkpoint(self, path: Path, recorded: str | None) -> Node:
        """Node of a bundle, with its dataset and the checkpoint it was trained from if the store knows them."""
        return checkpoint_node(path, recorded, self._find_dataset, self._parent, self._find_base)

    def _version(self, name: str, version: str | None, alias: str | None) -> Node:
        model_version = (
            self._client.get_model_version_by_alias(name, alias)
            if alias
            else self._client.get_model_version(name, str(version))
        )
        title = f"{name} version {model_version.version}" + (f" @{alias}" if alias else "")
        match = MODEL_ID.fullmatch(model_version.source or "")
        if match is None:
            cause = f"{title} comes from {model_version.source}, which is not a checkpoint of this project"
            return broken("model version", title, Problem("foreign-model", cause, "register the checkpoint's model"))
        return Node("model version", title, "ok", children=(self._model(self._client.get_logged_model(match[1])),))

    def _model(self, model: LoggedModel, path: Path | None = None) -> Node:
        """Node of a LoggedModel, with the run that made it, the evaluations that used it, and its checkpoint."""
        title = str(model.name)
        digest, uri = model.tags.get(MODEL_TAG), model.tags.get(URI_TAG)
        if digest is None or (uri is None and path is None):
            cause = f"{title} names no checkpoint (tags {MODEL_TAG}, {URI_TAG})"
            problem = Problem("foreign-model", cause, "use a model that sft, rl or bundle recorded")
            return broken("model", title, problem, digest, model.model_id)
        children = [*self._maker(model)]
        evaluations = [self._summary(run, model) for run in self._evaluations(model)]
        children += evaluations or [Node("evaluation", "none yet", "unseen")]
        children.append(self._checkpoint_of(Path(path or uri or ""), digest))
        if evaluations and all(node.state != "ok" for node in evaluations):
            cause = f"{title} has no evaluation without a mismatch"
            problem = Problem("not-evaluated", cause, "rlinf-isaac eval --ckpt-root ...")
            return broken("model", title, problem, digest, model.model_id, tuple(children))
        return Node("model", title, "ok", digest, model.model_id, children=tuple(children))

    def _maker(self, model: LoggedModel) -> Iterator[Node]:
        """Node of the run that made a model, if there is one: the run that created the LoggedModel or, if that was
        interrupted, the run that resumed and finished it."""
        if not model.source_run_id:
            return
        run = self._client.get_run(model.source_run_id)
        if run.info.status != "FINISHED":
            link = lineage_tag("config")
            query = f"attributes.status = 'FINISHED' and tags.`{link}` = '{model.tags.get(link)}'"
            for other in self._client.search_runs([run.info.experiment_id], query, max_results=50):
                resumed = self._client.get_run(other.info.run_id)  # a search does not return the outputs
                if model.model_id in {output.model_id for output in _outputs(resumed)}:
                    run = resumed
                    break
        yield self._summary(run, model)

    def _checkpoint_of(self, path: Path, digest: str) -> Node:
        """Node of the checkpoint with this digest. If it is in the tree already, the node has no children."""
        if not path.is_dir():
            return Node("checkpoint", "not here", "unseen", digest, f"{path} (gone)")
        if (path, digest) in self._seen:
            return Node("checkpoint", path.name, "ok", digest, str(path), ("see above",))
        node = self.checkpoint(path, digest)
        if node.state == "ok":
            self._seen.add((path, digest))
        return node

    def _run(self, run: Run) -> Node:
        """Node of a run, with its nested runs and the checkpoints that it made or used."""
        children = [self._run(child) for child in self._children(run)]
        outputs = sorted(_outputs(run), key=lambda output: output.step)
        ids = [model.model_id for model in (run.inputs.model_inputs or [])] if run.inputs else []
        ids += [output.model_id for output in outputs]
        # `main` has the checkpoints of the runs nested in it, which are in the tree already.
        for model_id in [] if run.data.tags.get(VERB_TAG) == "main" else ids:
            model = self._client.get_logged_model(model_id)
            digest = model.tags.get(MODEL_TAG)
            if digest is not None and model.tags.get(URI_TAG):
                children.append(self._checkpoint_of(Path(model.tags[URI_TAG]), digest))
        own = self._summary(run, None)
        return replace(own, children=tuple(children))

    def _summary(self, run: Run, model: LoggedModel | None) -> Node:
        """Node of a run without children: its status, its results, and whether its digests agree with `model`."""
        tags, metrics = run.data.tags, run.data.metrics
        kind = "evaluation" if EPISODES in metrics else tags.get(VERB_TAG, "run")
        title = str(run.info.run_name)
        remarks = [run.info.status]
        if EPISODES in metrics:
            remarks.append(f"success {100 * metrics[SUCCESS]:.0f} % of {metrics[EPISODES]:.0f}")
        elif SUCCESS_BEFORE in metrics:
            before, after = (100 * metrics[name] for name in (SUCCESS_BEFORE, SUCCESS))
            remarks.append(f"success {before:.0f} % before, {after:.0f} % after")
        if commit := tags.get(COMMIT_TAG):
            remarks.append(f"commit {commit[:8]}{' + changes' if tags.get(DIRTY_TAG) == 'true' else ''}")
        problems = list(_mismatch_problems(run)) + list(_link_problems(run, model))
        if run.info.status != "FINISHED":
            cause = f"{kind} run {run.info.run_id} is {run.info.status}"
            problems.append(Problem("run-not-finished", cause, "run the same command again; it resumes"))
        state: State = "broken" if problems else "ok"
        return Node(kind, title, state, None, run.info.run_id, tuple(remarks), tuple(problems))

    def _parent(self, digest: str) -> Node | None:
        """Node of the parent checkpoint with this digest, with the run that made it; None if it is not known."""
        for model in sorted(self._models(digest), key=lambda model: model.source_run_id is None):
            if uri := model.tags.get(URI_TAG):
                node = self._checkpoint_of(Path(uri), digest)
                return replace(
                    node, kind="parent", title=str(model.name), children=(*self._maker(model), *node.children)
                )
        path = self._find_base(digest, "parent")
        return None if path is None else replace(self._checkpoint_of(path, digest), kind="parent")

    def _find_dataset(self, digest: str) -> Path | None:
        """Directory of the dataset as a run of this store recorded it."""
        if self._dataset is not None or not self._experiments:
            return self._dataset
        # A dataset in a mixture has no such tag; it is found by the digest of MLflow's dataset input.
        queries = (f"tags.`{lineage_tag('dataset')}` = '{digest}'", f"dataset.digest = '{digest[:32]}'")
        return next(filter(None, (self._find_dataset_by(query, digest) for query in queries)), None)

    def _find_dataset_by(self, query: str, digest: str) -> Path | None:
        # Oldest first: the first runs have read the dataset itself, later ones only checkpoints made from it.
        order = ["attributes.start_time ASC"]
        for run in self._client.search_runs(self._experiments, query, max_results=50, order_by=order):
            inputs = self._client.get_run(run.info.run_id).inputs  # a search does not return the inputs
            for item in inputs.dataset_inputs if inputs else []:
                source = json.loads(item.dataset.source) if item.dataset.source_type == "lerobot" else {}
                if source.get("sha256") == digest:
                    return Path(source["root"])
        return None

    def _find_base(self, digest: str, link: str = "base") -> Path | None:
        """Path of a base as recorded by the first run that started from it; with `link` "parent", of a bundle."""
        if not self._experiments:
            return None
        query = f"tags.`{lineage_tag(link)}` = '{digest}'"
        for run in self._client.search_runs(self._experiments, query, order_by=["attributes.start_time ASC"]):
            if uri := run.data.tags.get(BASE_URI_TAG):
                return Path(uri)
        return None

    def _models(self, digest: str) -> list[LoggedModel]:
        return models_of(self._client, digest, self._experiments)

    def _evaluations(self, model: LoggedModel) -> list[Run]:
        metrics = [metric for metric in model.metrics or [] if metric.key == EPISODES]
        runs = sorted({metric.run_id for metric in metrics if metric.run_id})
        return [self._client.get_run(run) for run in runs]

    def _children(self, run: Run) -> Iterable[Run]:
        query = f"tags.{PARENT_RUN_TAG} = '{run.info.run_id}'"
        children = self._client.search_runs([run.info.experiment_id], query, order_by=["attributes.start_time ASC"])
        return [self._client.get_run(child.info.run_id) for child in children]


def _outputs(run: Run) -> list[LoggedModelOutput]:
    return run.outputs.model_outputs if run.outputs else []


def _mismatch_problems(run: Run) -> Iterable[Problem]:
    tags = run.data.tags
    if tags.get(MISMATCH_TAG) == "true":
        codes = sorted(key.removeprefix(MISMATCH_OF_TAG) for key in tags if key.startswith(MISMATCH_OF_TAG))
        cause = f"run {run.info.run_id} went on in spite of {', '.join(codes)}"
        yield Problem("mismatch-allowed", cause, "repeat the run without --allow-mismatch")


def _link_problems(run: Run, model: LoggedModel | None) -> Iterable[Problem]:
    """A problem for each digest that the run and the model both record with different values."""
    tags: dict[str, Any] = model.tags if model is not None else {}
    for key in sorted(tags):
        if key.startswith(LINEAGE_TAG) and key in run.data.tags and run.data.tags[key] != tags[key]:
            cause = f"run {run.info.run_id} has {key} {run.data.tags[key]}, but the checkpoint has {tags[key]}"
            yield Problem("link-mismatch", cause, "one of the two records was edited; do not trust either of them")
