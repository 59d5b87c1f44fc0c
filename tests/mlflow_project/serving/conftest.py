"""A real policy and a real server, shared: tests only talk to them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from serving_support import Running, running

from mlflow_project.serving.log_model import log_policy_model
from mlflow_project.serving.policy import ServedPolicy, serving_config
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle


@pytest.fixture(scope="session")
def bundle(small_checkpoints) -> Bundle:
    return read_bundle(small_checkpoints / "6")


@pytest.fixture(scope="session")
def policy(bundle) -> ServedPolicy:
    return ServedPolicy(bundle, serving_config(bundle))


@pytest.fixture(scope="session")
def policy_server(policy) -> Iterator[Running]:
    """With the default limits."""
    with running(policy) as one:
        yield one


@pytest.fixture(scope="session")
def registry(tmp_path_factory, empty_database, bundle) -> str:
    """Tracking URI of a store with ``stack-cube``, version 1 alias champion: a bundle that exists nowhere else."""
    import mlflow

    directory = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_database, directory / "mlflow.db")
    shutil.copytree(bundle.path, directory / "6")
    uri = f"sqlite:///{directory / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("rlinf-isaac", artifact_location=str(directory / "artifacts"))
    with mlflow.start_run(experiment_id=experiment):
        info = log_policy_model(read_bundle(directory / "6"))
    shutil.rmtree(directory / "6")
    client = mlflow.MlflowClient(uri)
    client.create_registered_model("stack-cube")
    client.create_model_version("stack-cube", info.model_uri)
    client.set_registered_model_alias("stack-cube", "champion", "1")
    mlflow.set_tracking_uri(None)
    return uri
