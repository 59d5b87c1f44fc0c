from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rlinf_isaac.config import load_config
from rlinf_isaac.envs.isaaclab.checks import check_lab
from rlinf_isaac.preflight import check_simulator
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.task import Task

LIFT = Path(__file__).parents[4] / "examples" / "tasks" / "isaaclab_lift_cube.yaml"


def lift(**env: Any) -> Task:
    """A task of IsaacLab, whose section `env` has these entries."""
    values = {
        "name": "lift",
        "prompt": "lift it",
        "control_hz": 50,
        "state": {"dims": 9, "env": "policy/joint_pos"},
        "action": {"dims": 7},
        "env": {"kind": "isaaclab", "make": "IsaacContrib-Lift-Cube-Franka-IK-Rel", "success": "term:success", **env},
    }
    return from_dict(values, "a test", Path())


def python_with(directory: Path, **versions: str | None) -> str:
    """An interpreter that has these."""
    python = directory / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps(versions)}'\n")
    python.chmod(0o755)
    return str(python)


@pytest.fixture
def python(tmp_path) -> str:
    return python_with(tmp_path, numpy="2.5.5", isaaclab="3.0.0")


def test_an_interpreter_that_has_all_has_no_problem(python, monkeypatch):
    assert check_lab(lift(), python) == []
    monkeypatch.setenv("ISAACLAB_PYTHON", python)
    assert check_lab(lift()) == []
    monkeypatch.setenv("OTHER", python)
    assert check_lab(lift(python="$OTHER")) == []


def test_without_one_the_line_that_makes_it_is_said(monkeypatch):
    monkeypatch.delenv("ISAACLAB_PYTHON", raising=False)
    (problem,) = check_lab(lift())
    assert problem.code == "no-env-python"
    assert "isaaclab setup" in problem.cure
    assert "ISAACLAB_PYTHON" in problem.cure


def test_one_without_isaaclab_or_with_another_release_is_said(tmp_path):
    assert [each.code for each in check_lab(lift(), sys.executable)] == ["no-env-package"]
    old = python_with(tmp_path, numpy="2.5.5", isaaclab="2.3.2")
    assert [each.code for each in check_lab(lift(), old)] == ["isaaclab-version"]


def test_every_wrong_option_is_said_before_anything_starts(python):
    task = lift(make="", options={"launcher": "gazebo", "cameras": {"front": {"width": 0}}})
    problems = check_lab(task, python)
    assert [each.code for each in problems] == ["isaaclab-options"] * 3
    assert all(word in str(problems) for word in ("gazebo", "front.width", "env.make of lift is missing"))


def test_it_is_part_of_the_preflight_of_a_job(monkeypatch):
    monkeypatch.delenv("ISAACLAB_PYTHON", raising=False)
    config = load_config("tiny", [f"env.task={LIFT}"])
    assert config.env.backend == "isaaclab"
    assert [each.code for each in check_simulator(config)] == ["no-env-python"]
