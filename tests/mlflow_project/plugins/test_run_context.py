"""MLflow, with the plugin registered as the installed package registers it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.tracking.context import registry

from mlflow_project.plugins import run_context
from mlflow_project.plugins.run_context import PostTrainingContext
from mlflow_project.tracking.mlflow_environment import VERB
from mlflow_project.tracking.runs import tracked_run

PROJECT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _fresh():
    run_context._tags.cache_clear()
    yield
    run_context._tags.cache_clear()


def test_it_is_registered():
    points = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["entry-points"]
    target = f"{PostTrainingContext.__module__}:{PostTrainingContext.__name__}"
    assert points["mlflow.run_context_provider"] == {"rlinf-isaac": target}


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """As on a machine with this package and a GPU; the store is the one of the test."""
    providers = registry.RunContextProviderRegistry()
    providers.register(PostTrainingContext)
    monkeypatch.setattr(registry, "_run_context_provider_registry", providers)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA H100, 570.1'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


def tags_of_a_new_run():
    with mlflow.start_run(experiment_id="0") as run:  # MLflow remembers an experiment that another test may have set
        pass
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_run(run.info.run_id).data.tags


@pytest.mark.usefixtures("registered")
def test_a_run_that_code_inside_a_verb_creates_is_tagged(tmp_path):
    with tracked_run("sft", output=tmp_path / "out"):
        tags = tags_of_a_new_run()
    assert tags["version.torch"] == version("torch")
    assert tags["gpu"] == "NVIDIA H100"
    assert tags["gpu.driver"] == "570.1"


@pytest.mark.usefixtures("registered")
def test_a_run_of_another_script_is_not_tagged(tmp_path):
    ours = {"gpu", "gpu.driver"} | {f"version.{name}" for name in run_context.VERSIONS_OF}
    assert not ours & tags_of_a_new_run().keys()
    with tracked_run("sft", output=tmp_path / "out"):
        pass
    assert not ours & tags_of_a_new_run().keys(), "a verb that has ended still counts"


def test_a_process_that_a_verb_starts_is_its(tmp_path):
    code = f"""
import os
from mlflow_project.plugins.run_context import PostTrainingContext as C
print(C().in_context(), os.environ.pop({VERB!r}), C().in_context())
"""
    with tracked_run("sft", output=tmp_path / "out"):
        said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said.split() == ["True", "sft", "False"]


def test_what_is_not_there_is_left_out(monkeypatch):
    monkeypatch.setattr(run_context, "VERSIONS_OF", ("no-such-package",))
    monkeypatch.setenv("PATH", "")
    assert PostTrainingContext().tags() == {}
