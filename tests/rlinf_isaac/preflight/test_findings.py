from __future__ import annotations

import subprocess
import sys

import pytest

from rlinf_isaac.ground.errors import DatasetError, InvalidJob, Problem
from rlinf_isaac.preflight import Findings

ERROR = Problem("broken", "it is broken", "mend it")
WARNING = Problem("odd", "it is odd", "look at it", level="warning")


def test_all_problems_are_raised_at_once_and_warnings_never():
    Findings().raise_errors()
    Findings([WARNING]).raise_errors()
    findings = Findings([ERROR, WARNING])
    findings.add([ERROR, Problem("other", "another", "mend it, too")])
    assert [problem.code for problem in findings.problems] == ["broken", "odd", "other"]
    assert findings.warnings == [WARNING]
    with pytest.raises(InvalidJob) as caught:
        findings.raise_errors()
    assert [problem.code for problem in caught.value.problems] == ["broken", "other"]


def test_a_refusal_inside_a_block_is_noted_and_the_next_check_runs():
    findings = Findings()
    with findings.collect():
        raise DatasetError.of("broken", "it is broken", "mend it")
    with findings.collect():
        findings.add([WARNING])
    assert findings.problems == [ERROR, WARNING]
    with pytest.raises(ZeroDivisionError), findings.collect():
        _ = 1 / 0


def test_it_imports_neither_torch_nor_a_simulator():
    code = "import sys, rlinf_isaac.preflight\nprint([n for n in ('torch', 'mujoco', 'mlflow') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
