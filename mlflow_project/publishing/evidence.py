"""Finds a checkpoint that is to be published, and everything that the store knows about it. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.comparison.compare import Comparison, compare
from mlflow_project.comparison.evaluations import Evaluation, evaluations_of, read_evaluations, run_id_in
from mlflow_project.lineage.chain_store import MODEL_ID, VERSION
from mlflow_project.lineage.models_of import models_of
from mlflow_project.serving.resolve import resolve_model
from mlflow_project.tracking.store import existing_store, is_missing, tracking_uri
from mlflow_project.vocabulary import COMMIT_TAG, DATASET_HUB_TAG, DIRTY_TAG, MISMATCH_TAG, VERSION_TAG
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.hub import SCHEME

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run


@dataclass(frozen=True)
class Evidence:
    """What is known of a checkpoint.

    Attributes:
        bundle: the checkpoint, with all its bytes verified.
        evaluation: the evaluation whose success rate stands for the checkpoint; None if it was never evaluated, or only
            in spite of a mismatch.
        comparison: the checkpoints of the same sweep, compared.
        others: further evaluations of the same bytes, newest first.
        mismatched: how many evaluations were left out because they were run in spite of a mismatch.
        training: tags and parameters of the run that made the checkpoint; empty if the store does not know it.
    """

    bundle: Bundle
    evaluation: Evaluation | None = None
    comparison: Comparison | None = None
    others: tuple[Evaluation, ...] = ()
    mismatched: int = 0
    training: Mapping[str, str] = field(default_factory=dict)

    @property
    def datasets(self) -> tuple[str, ...]:
        """``org/name`` of the datasets of the hub that it was trained on; empty if they came from elsewhere."""
        uris = self.training.get(DATASET_HUB_TAG, "").split()
        return tuple(uri.removeprefix(SCHEME).partition("@")[0] for uri in uris)

    @property
    def base(self) -> Mapping[str, Any]:
        """The record of the checkpoint that training started from (`foreign.base.Base.record`); empty if none is
        known."""
        return self.bundle.config.get("base") or {}

    @property
    def base_model(self) -> str | None:
        """``org/name`` of the model of the hub that it started from; None if that came from elsewhere."""
        if self.base.get("revision"):
            return "/".join(str(self.base["name"]).split("/")[:2])
        hub = (self.bundle.config.get("source") or {}).get("hub")
        return "/".join(hub.removeprefix(SCHEME).partition("@")[0].split("/")[:2]) if hub else None

    @property
    def commit(self) -> str | None:
        """The commit of this project that trained it, with ``+`` if there were uncommitted changes."""
        commit = self.training.get(COMMIT_TAG)
        return commit and commit + ("+" if self.training.get(DIRTY_TAG) == "true" else "")

    @property
    def versions(self) -> dict[str, str]:
        """Package -> its version in the training."""
        return {
            tag.removeprefix(VERSION_TAG): value
            for tag, value in sorted(self.training.items())
            if tag.startswith(VERSION_TAG)
        }


def find_evidence(subject: str) -> Evidence:
    """The checkpoint that `subject` names, and what is known of it.

    Args:
        subject: a bundle's directory, ``models:/name@alias``, ``models:/name/version``, a model id (``m-...``), or the
            id or link of a run: of its evaluated checkpoints the best one or, of a training, the last one.

    Raises:
        InvalidJob: there is no such checkpoint, or its bytes are not here.
        BundleError: its bytes are damaged.
    """
    path = Path(subject)
    if path.exists():
        bundle = read_bundle(path)
        if is_missing(tracking_uri()):
            return Evidence(bundle)
        return _known(existing_store(), bundle)
    if VERSION.fullmatch(subject) or MODEL_ID.fullmatch(subject):
        return _known(existing_store(), resolve_model(subject))
    client, run_id = existing_store(), _run_in(subject)
    try:
        evaluation = compare(read_evaluations(client, [run_id])).standings[0].evaluation
    except InvalidJob as error:
        if error.problems[0].code != "no-evaluations":
            raise
        from mlflow_project.serving.base_source import locate_base

        return _known(client, read_bundle(locate_base(run_id).path))
    model = _model(client, evaluation.checkpoint)
    if model is None:
        cause = f"the store does not know the checkpoint {evaluation.checkpoint} that {subject} evaluated"
        raise InvalidJob.of("unknown-model", cause, "name the checkpoint's directory")
    return _known(client, resolve_model(model.model_id), evaluation)


def _run_in(subject: str) -> str:
    try:
        return run_id_in(subject)
    except InvalidJob:
        cause = f"{subject} is neither a checkpoint's directory nor a run or model of the store"
        cure = "name a bundle's directory, a run id, models:/NAME@ALIAS or m-..."
        raise InvalidJob.of("unknown-subject", cause, cure) from None


def _known(client: MlflowClient, bundle: Bundle, chosen: Evaluation | None = None) -> Evidence:
    """The evidence about a bundle; `chosen` or, without it, the newest evaluation stands for it."""
    found = evaluations_of(client, bundle.digest)
    good = [each for each in found if each.tags.get(MISMATCH_TAG) != "true"]
    if chosen is None or chosen.tags.get(MISMATCH_TAG) == "true":
        chosen = good[0] if good else None
    comparison = None
    if chosen is not None:
        comparison = compare(read_evaluations(client, [chosen.sweep]))
    maker = _maker(client, bundle)
    return Evidence(
        bundle=bundle,
        evaluation=chosen,
        comparison=comparison,
        others=tuple(each for each in good if chosen is None or each.run != chosen.run),
        mismatched=len(found) - len(good),
        training=maker.data.tags if maker else {},
    )


def _maker(client: MlflowClient, bundle: Bundle) -> Run | None:
    """The run that made the checkpoint."""
    model = _model(client, bundle.digest)
    return client.get_run(model.source_run_id) if model is not None and model.source_run_id else None


def _model(client: MlflowClient, digest: str) -> LoggedModel | None:
    return next(iter(models_of(client, digest)), None)
