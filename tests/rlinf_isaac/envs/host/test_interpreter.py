from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.envs.host.interpreter import check_host, find_python
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.preflight import check_simulator
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.registry import find_task
from rlinf_isaac.tasks.task import differences

SETUP = "python -m venv toy-venv"


def test_the_interpreter_is_the_named_one_or_that_of_the_task_or_this_one(toy_task, monkeypatch, tmp_path) -> None:
    assert find_python(toy_task()) == sys.executable
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setenv("TOYS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for spelling in ("$TOYS/python", "${TOYS}/python", "~/python"):
        assert find_python(toy_task(python=spelling)) == str(tmp_path / "python")
    assert find_python(toy_task(python="$NOT_SET"), sys.executable) == sys.executable
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_python(toy_task(python="python")) == str(tmp_path / "python")


def test_a_variable_that_is_not_set_is_said_with_the_line_that_makes_the_environment(toy_task, monkeypatch) -> None:
    monkeypatch.delenv("TOY_PYTHON", raising=False)
    task = toy_task(python="$TOY_PYTHON", setup=SETUP)
    with pytest.raises(SimulatorError, match=r"\[no-env-python\] .*TOY_PYTHON is not set") as raised:
        find_python(task)
    assert raised.value.problems[0].cure == f"{SETUP}; then set TOY_PYTHON to its python"
    assert check_host(task) == list(raised.value.problems)


def test_what_depends_on_the_machine_is_no_part_of_the_task(toy_task) -> None:
    here, there = toy_task(python="$TOY_PYTHON", setup=SETUP), toy_task()
    assert here.digest == there.digest
    assert differences(here, there) == []
    assert from_dict(here.as_dict(), "a test") == here


@pytest.mark.parametrize("name", ["no/such/python", "."])
def test_one_that_is_not_there_is_said(toy_task, name) -> None:
    (problem,) = check_host(toy_task(python=name, setup=SETUP))
    assert problem.code == "no-env-python"
    assert SETUP in problem.cure


def test_what_is_no_interpreter_is_said(toy_task, tmp_path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    (problem,) = check_host(toy_task(python=str(tmp_path / "python")))
    assert (problem.code, "does not run" in problem.cause) == ("no-env-python", True)


def test_a_missing_package_is_said() -> None:
    """This process's interpreter has no Meta-World, whose MuJoCo is not this project's."""
    (problem,) = check_host(find_task("metaworld/reach-v3"), sys.executable)
    assert problem.code == "no-env-package"
    assert "does not have metaworld, " in problem.cause


def test_a_file_that_has_changed_is_said_before_anything_starts(toy_task, tmp_path) -> None:
    (tmp_path / "toy.py").write_bytes(Path(__file__).with_name("toy.py").read_bytes())
    task = toy_task(tmp_path)
    assert check_host(task) == []
    (tmp_path / "toy.py").write_text("")
    (problem,) = check_host(task)
    assert (problem.code, "toy.py is e3b0c44298fc" in problem.cause) == ("env-source-changed", True)
    (tmp_path / "toy.py").unlink()
    (problem,) = check_host(task)
    assert (problem.code, "cannot be read" in problem.cause) == ("env-source-changed", True)


def test_the_preflight_asks(toy_task) -> None:
    task = toy_task(python="no/such/python")
    config = replace(JobConfig(), task=task.as_dict())
    assert [each.code for each in check_simulator(config)] == ["no-env-python"]
    assert check_simulator(config, sys.executable) == []
