from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rlinf_isaac.envs.isaaclab.versions import check_python


@pytest.mark.parametrize("python", [None, "/nowhere/python", sys.executable])
def test_an_interpreter_without_isaaclab_is_refused_with_the_way_to_get_one(python):
    (problem,) = check_python(python)
    assert problem.code == ("no-isaaclab-python" if python is None else "no-isaaclab")
    assert "isaaclab setup" in problem.cure


def answering(directory: Path, **versions: str | None) -> str:
    """An interpreter that has these."""
    python = directory / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps(versions)}'\n")
    python.chmod(0o755)
    return str(python)


@pytest.mark.parametrize(
    ("versions", "code", "cause"),
    [
        ({"isaaclab": "2.3.2.post1"}, "isaaclab-version", "2.3.2.post1"),
        ({"isaaclab": None, "torch": "2.13.0"}, "no-isaaclab", "has no IsaacLab"),
        ({"isaaclab": "3.0.0", "newton": None, "torch": None}, "isaaclab-incomplete", "but not newton, torch"),
    ],
)
def test_what_is_missing_is_named(tmp_path, versions, code, cause):
    (problem,) = check_python(answering(tmp_path, **versions))
    assert problem.code == code
    assert cause in problem.cause


def test_a_complete_one_has_no_problem(tmp_path):
    assert check_python(answering(tmp_path, isaaclab="3.0.1", newton="1.6.1", torch="2.13.0+cu130")) == []
