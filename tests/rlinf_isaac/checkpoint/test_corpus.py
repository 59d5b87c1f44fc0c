"""Every broken checkpoint of the corpus is refused by what `eval` runs first, for its one reason; the twin is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from corpus.case import Case
from corpus.checkpoints import CASES, NEED_HASHING

from rlinf_isaac.jobs.evaluation import KEYS, check
from rlinf_isaac.preflight.findings import Findings

DEFAULTS = {
    **dict.fromkeys((*KEYS, "ckpt_steps", "norm_stats", "batch"), "auto"),
    **dict.fromkeys(("assume", "overrides"), "none"),
    **dict.fromkeys(("allow_mismatch", "until_decided"), False),
    "engine": "local",
}
"""Options as the command line leaves them."""


@pytest.fixture
def root(tmp_path, small_checkpoints) -> Path:
    for step in ("2", "4"):
        shutil.copytree(small_checkpoints / step, tmp_path / "checkpoints" / step)
    return tmp_path / "checkpoints"


def codes(root: Path, *, quick: bool) -> set[str]:
    findings = Findings()
    check(findings, ckpt_root=str(root), output=root.parent / "out", quick=quick, **DEFAULTS)
    assert not (root.parent / "out").exists()
    return {problem.code for problem in findings.errors}


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.mark.parametrize("quick", [False, True])
def test_the_valid_twin(root, quick):
    assert codes(root, quick=quick) == set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused_for_its_reason_and_left_alone(root, case: Case):
    case.break_it(root)
    before = snapshot(root)
    assert codes(root, quick=False) == {case.code}
    assert codes(root, quick=True) == (set() if case.name in NEED_HASHING else {case.code})
    assert snapshot(root) == before


def test_cases_are_named_once():
    assert len({case.name for case in CASES}) == len(CASES) >= 15
    assert {case.name for case in CASES} >= NEED_HASHING
