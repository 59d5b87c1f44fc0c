"""Every broken dataset of the corpus is found out, its valid twin passes, and neither is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from corpus.case import Case
from corpus.datasets import CASES, DATASET_CASES, JOB_CASES, WARNING_CASES, make_valid

from rlinf_isaac.config import load_config
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.validate.dataset import validate_dataset
from rlinf_isaac.preflight.dataset import check_dataset


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("valid") / "data"
    make_valid(root)
    return root


@pytest.fixture
def root(valid, tmp_path) -> Path:
    return Path(shutil.copytree(valid, tmp_path / "data"))


def tree(root: Path) -> dict[Path, tuple[bytes | None, int, int]]:
    everything = [root.parent, root, *root.rglob("*")]
    return {p: (p.read_bytes() if p.is_file() else None, p.stat().st_mtime_ns, p.stat().st_mode) for p in everything}


def case_id(case: Case) -> str:
    return case.name.replace(" ", "-")


@pytest.mark.parametrize("full", [False, True])
def test_the_valid_dataset_has_no_problems(root, full):
    before = tree(root)
    assert validate_dataset(root, full=full) == []
    assert check_dataset(load_config("tiny"), root) == []
    assert tree(root) == before


@pytest.mark.parametrize("case", DATASET_CASES + WARNING_CASES, ids=case_id)
def test_faults_of_a_dataset(root, case):
    case.break_it(root)
    before = tree(root)
    problems = validate_dataset(root)
    assert tree(root) == before
    assert case.code in [problem.code for problem in problems]
    levels = {problem.level for problem in problems}
    assert levels == ({"warning"} if case in WARNING_CASES else {"error"}) or case.name == "episode deleted in meta"
    for problem in problems:
        assert str(root) in problem.cause or "info.json" in problem.cause
        assert problem.cure
        assert problem.cure[-1] != "."


@pytest.mark.parametrize("case", JOB_CASES, ids=case_id)
def test_faults_that_a_job_finds(root, case):
    case.break_it(root)
    assert validate_dataset(root) == [], "the dataset is consistent in itself"
    assert case.code in [problem.code for problem in check_dataset(load_config("tiny"), root)]


@pytest.mark.parametrize("case", WARNING_CASES, ids=case_id)
def test_what_is_only_a_warning_can_be_read(root, case):
    before = LeRobotDataset(root).column("action")
    case.break_it(root)
    assert (LeRobotDataset(root).column("action") == before).all()


def test_names_are_distinct():
    assert len({case.name for case in CASES + WARNING_CASES}) == len(CASES + WARNING_CASES) >= 30
