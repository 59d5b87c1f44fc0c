"""Names of modules that others have written down: in registered models, in environments, in installations."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

IMPORTS_OF_STORED_MODELS = {
    "mlflow_project.serving.log_model": ("read_requests", "requests_of"),
    "mlflow_project.serving.policy": ("ServedPolicy", "serving_config"),
    "mlflow_project.serving.resolve": ("ARTIFACT",),
    "rlinf_isaac.checkpoint.bundle": ("read_bundle",),
    "rlinf_isaac.checkpoint.facts": ("assume",),
    "rlinf_isaac.errors": ("BundleError", "InvalidJob"),
}
"""What any version of `pyfunc_model.py` imports of ours: a copy of that file lies with every model that was logged."""


@pytest.mark.parametrize("module", IMPORTS_OF_STORED_MODELS)
def test_stored_models_find_what_they_import(module):
    names = IMPORTS_OF_STORED_MODELS[module]
    assert [name for name in names if not hasattr(import_module(module), name)] == []


def test_errors_are_the_same_classes_by_either_name():
    from rlinf_isaac import errors
    from rlinf_isaac.ground import errors as ground

    assert (errors.BundleError, errors.InvalidJob) == (ground.BundleError, ground.InvalidJob)


def test_the_documented_extension_is_the_one_of_the_workers():
    from rlinf_isaac.engines.rlinf import extension
    from rlinf_isaac.engines.rlinf.worker.extension import register

    assert extension.register is register


def test_the_documented_driver_runs(tmp_path):
    """Without RLinf it gets as far as the config of a run, which is not there; its journal says so."""
    command = [sys.executable, "-m", "rlinf_isaac.engines.rlinf.driver", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # it ends when its stdin does
        assert process.wait() != 0
    assert "config.yaml" in (tmp_path / "journal" / "driver.jsonl").read_text()


def test_mlflow_finds_the_source_of_datasets_by_the_name_of_old():
    from mlflow_project import lerobot_source
    from mlflow_project.plugins.lerobot_source import LeRobotSource

    assert lerobot_source.LeRobotSource is LeRobotSource


@pytest.mark.parametrize("name", ["--env-python", "--isaaclab-python", "--isaaclab_python"])
def test_the_interpreter_of_the_environment_has_its_older_names(name):
    """The last one is how `mlflow run -P isaaclab_python=...` arrives, which MLproject once listed."""
    from mlflow_project.cli.eval import command

    context = command.make_context("eval", ["--ckpt-root", "checkpoints", name, "there/python"])
    assert context.params["env_python"] == "there/python"
