"""`--ckpt-root` finds the checkpoints of models and runs; what is not there is told from a store that is not there."""

from __future__ import annotations

import mlflow
import pytest

from mlflow_project.serving.ckpt_root import locate_checkpoints
from mlflow_project.serving.resolve import resolve_model
from rlinf_isaac.ground.errors import InvalidJob


@pytest.fixture
def store(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    return mlflow.MlflowClient(registry)


def problem_of(name, find=locate_checkpoints):
    with pytest.raises(InvalidJob) as refused:
        find(name)
    (problem,) = refused.value.problems
    return problem


def test_a_version_a_model_and_a_run_lead_to_the_same_bundle(store, bundle):
    (path,) = locate_checkpoints("models:/stack-cube@champion")
    model = store.get_model_version("stack-cube", "1").source.removeprefix("models:/")
    run = store.get_logged_model(model).source_run_id
    assert locate_checkpoints(model) == locate_checkpoints(run) == [path]
    assert resolve_model(str(path)).digest == bundle.digest
    assert locate_checkpoints("result/sft/tiny") is None


def test_what_the_store_has_instead_is_named(store):
    assert problem_of("0" * 32).code == "not-in-store"
    wrong = problem_of("models:/stack-cube@prod")
    assert wrong.code == "unknown-model"
    assert wrong.cure == "models:/stack-cube has the versions 1; aliases: @champion (version 1)"
    assert problem_of("models:/stak-cube/1").cure == "did you mean models:/stack-cube?"
    assert problem_of("stack-cube", resolve_model).cure == "did you mean models:/stack-cube@champion?"


def test_a_run_without_checkpoints(store):
    run = store.create_run(store.get_experiment_by_name("rlinf-isaac").experiment_id)
    assert problem_of(run.info.run_id).code == "empty-ckpt-root"
