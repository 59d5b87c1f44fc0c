"""MLflow, with the plugin registered as the installed package registers it."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking.context import registry

from mlflow_project.plugins import run_context
from mlflow_project.plugins.run_context import PostTrainingContext

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


def test_a_run_of_any_script_is_tagged(tmp_path, monkeypatch):
    providers = registry.RunContextProviderRegistry()
    providers.register(PostTrainingContext)
    monkeypatch.setattr(registry, "_run_context_provider_registry", providers)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA H100, 570.1'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        with mlflow.start_run() as run:
            pass
        tags = mlflow.get_run(run.info.run_id).data.tags
    finally:
        mlflow.set_tracking_uri(None)
    assert tags["version.torch"] == version("torch")
    assert tags["gpu"] == "NVIDIA H100"
    assert tags["gpu.driver"] == "570.1"


def test_what_is_not_there_is_left_out(monkeypatch):
    monkeypatch.setattr(run_context, "VERSIONS_OF", ("no-such-package",))
    monkeypatch.setenv("PATH", "")
    assert PostTrainingContext().in_context()
    assert PostTrainingContext().tags() == {}
