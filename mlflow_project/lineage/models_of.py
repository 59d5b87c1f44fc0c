"""Finds the LoggedModels of a checkpoint by its digest, in whichever experiment it was logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlflow_project.vocabulary import MODEL_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


def models_of(client: MlflowClient, digest: str, experiments: Sequence[str] | None = None) -> list[LoggedModel]:
    """The LoggedModels of the bundle with this sha256.

    Args:
        client: of the store.
        digest: the bundle's.
        experiments: ids of the experiments to look in; None: all of the store.
    """
    if experiments is None:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    if not experiments:
        return []
    return list(client.search_logged_models(list(experiments), f"tags.`{MODEL_TAG}` = '{digest}'"))
