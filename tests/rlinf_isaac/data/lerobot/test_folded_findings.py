from __future__ import annotations

from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings, first_few
from rlinf_isaac.ground.errors import DatasetError, Problem


def test_faults_of_one_kind_are_one_problem_that_names_the_first_few():
    findings = FoldedFindings()
    findings.add("stray", "a file", "remove it", "warning")
    for number in range(1000):
        findings.add("missing", f"file {number}", "restore it")
    findings.add("missing", "another", "another cure")
    warning, many, other = (Problem("stray", "a file", "remove it", "warning"), *findings.problems()[:2])
    assert findings.problems() == [many, other, warning], "errors first"
    assert many.cause.splitlines() == ["file 0", *(f"  file {n}" for n in range(1, 5)), "  ... (1000 in all)"]
    assert other == Problem("missing", "another", "another cure")


def test_attempt_notes_the_problems_and_goes_on():
    def fail(name: str, *, times: int) -> int:
        raise DatasetError([Problem("broken", f"{name} {n}", "mend it") for n in range(times)])

    findings = FoldedFindings()
    assert findings.attempt(len, "abc") == 3
    assert findings.attempt(fail, "x", times=2) is None
    assert findings.problems() == [Problem("broken", "x 0\n  x 1", "mend it")]


def test_first_few():
    assert first_few([1, 2]) == "1, 2"
    assert first_few(range(7)) == "0, 1, 2, 3, 4, ... (7 in all)"
