from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from rlinf_isaac.preflight import environment
from rlinf_isaac.preflight.environment import GUESTS, check_requirements, inspect_environment


def test_what_is_here_is_found_with_its_version():
    components, problems = inspect_environment()
    found = {component.name: component.found for component in components}
    assert problems == []
    assert found["mujoco"] == importlib.metadata.version("mujoco")
    assert found["torch"].startswith(importlib.metadata.version("torch"))
    assert "build" in found["torch"] or "CUDA" in found["torch"]
    assert all(component.cure for component in components if component.found is None)


def test_a_missing_dependency_is_an_error_and_a_missing_extra_is_not(monkeypatch):
    version = environment.installed_version
    monkeypatch.setattr(
        environment, "installed_version", lambda name: None if name in ("mujoco", "sentencepiece") else version(name)
    )
    _, problems = inspect_environment()
    assert [problem.code for problem in problems] == ["missing-component"]
    assert "mujoco" in problems[0].cause


def test_a_version_outside_the_range_is_named_with_the_range(monkeypatch):
    version = environment.installed_version
    monkeypatch.setattr(environment, "installed_version", lambda name: "2.9.0" if name == "mlflow" else version(name))
    (problem,) = check_requirements()
    assert problem.code == "version-range"
    assert "mlflow 2.9.0" in problem.cause
    assert ">=3.13" in problem.cure


def test_no_gl_is_no_error(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    components, problems = inspect_environment()
    assert problems == []
    assert next(component.found for component in components if component.name == "EGL") is None


def test_the_probe_needs_nothing_but_python():
    probe = Path(environment.__file__).with_name("egl_probe.py")
    result = subprocess.run([sys.executable, "-I", str(probe)], capture_output=True, text=True)
    assert "EGL" in result.stdout + result.stderr


def test_nothing_heavy_is_imported():
    code = (
        "import sys\nfrom rlinf_isaac.preflight.environment import inspect_environment\ninspect_environment()\n"
        "print([n for n in ('torch', 'mujoco', 'mlflow', 'ray', 'isaaclab') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_isaaclab_is_looked_for_in_the_environment_that_is_named(monkeypatch, tmp_path):
    def isaaclab():
        return next(each for each in inspect_environment()[0] if each.name == "isaaclab")

    python = tmp_path / "python"
    python.write_text("""#!/bin/sh\necho '{"isaaclab": "3.0.0", "newton": null}'\n""")
    python.chmod(0o755)
    monkeypatch.setenv("ISAACLAB_PYTHON", str(python))
    assert (isaaclab().found, "but not newton" in isaaclab().unlocks) == (None, True)
    python.write_text("""#!/bin/sh\necho '{"isaaclab": "3.0.0", "newton": "1.6.1"}'\n""")
    assert isaaclab().found == f"3.0.0 ({python})"
    monkeypatch.delenv("ISAACLAB_PYTHON")
    assert isaaclab().found is None


@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.distribution)
def test_a_guest_is_looked_for_here_and_in_the_interpreter_that_is_named(monkeypatch, tmp_path, guest):
    def component():
        return next(each for each in environment._guests() if each.name == guest.distribution)

    monkeypatch.delenv(guest.variable, raising=False)
    here = environment.installed_version(guest.distribution)
    assert component().found == here
    python = tmp_path / "venv" / "bin" / "python"
    monkeypatch.setenv(guest.variable, str(python))
    assert (component().found, "does not run" in component().unlocks) == (here, here is None)
    venv.create(tmp_path / "venv", symlinks=True)
    assert (component().found, "lacks it" in component().unlocks) == (here, here is None)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    metadata = packages / f"{guest.distribution.replace('-', '_')}-9.8.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {guest.distribution}\nVersion: 9.8\n")
    assert component().found == (here or f"9.8 ({python})")
