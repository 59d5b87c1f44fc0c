from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlflow_project.plugins.default_experiment import ProjectExperiment, runs_this_project

PROJECT = Path(__file__).parents[3]


def declared() -> EntryPoint:
    """The plugin as the package declares it to MLflow."""
    groups = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["entry-points"]
    group = "mlflow.default_experiment_provider"
    return EntryPoint("rlinf-isaac", groups[group]["rlinf-isaac"], group)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/venv/bin/mlflow", "run", str(PROJECT)], True),
        (["mlflow", "run", "--env-manager", "local", f"file://{PROJECT}", "-e", "sft"], True),
        (["/site-packages/mlflow/__main__.py", "run", "-P", "steps=3", str(PROJECT)], True),
        (["mlflow", "run", str(PROJECT / "docs")], False),
        (["mlflow", "runs", "list", str(PROJECT)], False),
        (["python", "train.py", "run", str(PROJECT)], False),
        ([], False),
    ],
)
def test_it_speaks_only_for_mlflow_run_of_this_project(arguments, expected):
    assert runs_this_project(arguments) is expected


def test_another_project_is_left_alone(tmp_path):
    (tmp_path / "MLproject").write_text("name: someone-elses\n")
    assert not runs_this_project(["mlflow", "run", str(tmp_path)])


def test_the_experiment_is_made_once(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    provider = declared().load()()
    assert isinstance(provider, ProjectExperiment)
    made = provider.get_experiment_id()
    assert (made, provider.get_experiment_id()) == (made, made)
    assert MlflowClient(store).get_experiment(made).name == "rlinf-isaac"


def test_mlflow_asks_it(store):
    """In a process whose command line is that of `mlflow run`, as MLflow resolves the experiment of a new run."""
    script = (
        "import sys; sys.argv = ['mlflow', 'run', sys.argv[1]]\n"
        "from mlflow.tracking.default_experiment import registry\n"
        "from mlflow_project.plugins.default_experiment import ProjectExperiment\n"
        "registry._default_experiment_provider_registry.register(ProjectExperiment)\n"
        "from mlflow.projects import _resolve_experiment_id\n"
        "print(_resolve_experiment_id(), _resolve_experiment_id(experiment_id='0'))"
    )
    command = [sys.executable, "-c", script, str(PROJECT)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": store}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    chosen = MlflowClient(store).get_experiment_by_name("rlinf-isaac").experiment_id
    assert told.split() == [chosen, "0"]
