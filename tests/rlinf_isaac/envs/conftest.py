"""IsaacLab for the tests marked `isaaclab`: that of the interpreter ISAACLAB_PYTHON names."""

from __future__ import annotations

import os

import pytest

from rlinf_isaac.envs.isaaclab.versions import check_python


@pytest.fixture(scope="session")
def env_python() -> str:
    python = os.environ.get("ISAACLAB_PYTHON")
    if problems := check_python(python):
        pytest.skip(f"{problems[0].cause}; {problems[0].cure}")
    assert python is not None
    return python
