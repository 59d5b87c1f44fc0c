from __future__ import annotations

import sys

import pytest

from rlinf_isaac.envs.isaaclab.versions import TASK_IDS, check_python, task_id


def test_a_task_is_known_by_either_id():
    for known in TASK_IDS.values():
        assert task_id(known, "2.3.2") == TASK_IDS["2"]
        assert task_id(known, "3.0.0") == TASK_IDS["3"]


def test_other_tasks_have_no_id():
    with pytest.raises(ValueError, match="no stacking task"):
        task_id("Isaac-Cartpole-v0", "3.0.0")


@pytest.mark.parametrize("python", [None, "/nowhere/python", sys.executable])
def test_an_interpreter_without_isaaclab_is_refused_with_the_way_to_get_one(python):
    (problem,) = check_python(python)
    assert problem.code == ("no-isaaclab-python" if python is None else "no-isaaclab")
    assert "isaaclab setup" in problem.cure


def test_another_release_is_refused(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 2.3.2.post1\n")
    python.chmod(0o755)
    (problem,) = check_python(str(python))
    assert (problem.code, "2.3.2.post1" in problem.cause) == ("isaaclab-version", True)
