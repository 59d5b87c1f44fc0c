"""RLinf for the tests marked `rlinf`: that of RLINF_PYTHON, or of this interpreter.

python3.11 -m venv rlinf-venv && rlinf-venv/bin/pip install -c constraints-rlinf.txt torch torchvision
rlinf-venv/bin/pip install -c constraints-rlinf.txt -e '.[rlinf]'
RLINF_PYTHON=rlinf-venv/bin/python python -m pytest -m rlinf
"""

from __future__ import annotations

import os
import sys

import pytest

from rlinf_isaac.engines.rlinf import RlinfEngine, Runtime
from rlinf_isaac.engines.rlinf.preflight import check_runtime


@pytest.fixture(scope="session")
def rlinf_python() -> str:
    python = os.environ.get("RLINF_PYTHON", sys.executable)
    if problems := [each for each in check_runtime(Runtime(python=python)) if each.level == "error"]:
        pytest.skip(f"RLinf is not installed: {problems[0].cause}; set RLINF_PYTHON")
    return python


@pytest.fixture
def engine(rlinf_python) -> RlinfEngine:
    return RlinfEngine(Runtime(python=rlinf_python))
