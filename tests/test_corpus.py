"""Broken inputs of every kind are refused by the command line with their code, and nothing is written anywhere."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from corpus.jobs import KINDS, make_twins

from mlflow_project.cli import cli

CASES = [pytest.param(kind, case, id=f"{kind.name}: {case.name}") for kind in KINDS for case in kind.cases]


@pytest.fixture(scope="module")
def twins(tmp_path_factory, small_checkpoints):
    directory = tmp_path_factory.mktemp("twins")
    make_twins(directory, small_checkpoints)
    return directory


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty directory; gives its exit code and the codes of the errors, on whatever stream."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def invoke(words):
        if words[0] == "doctor":
            result = CliRunner().invoke(cli, [*words, "--json"])
            problems = json.loads(result.stdout)["problems"]
            return result.exit_code, {each["code"] for each in problems if each["level"] == "error"}
        result = CliRunner().invoke(cli, words)
        return result.exit_code, {line.split()[1] for line in result.stderr.splitlines() if line.startswith("error ")}

    return invoke


def snapshot(directory):
    return {
        path.relative_to(directory): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(directory.rglob("*"))
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_valid_twin_passes(kind, twins, run, tmp_path):
    path = kind.copy_twin(twins, tmp_path)
    assert run(kind.command(None, path, twins / "dataset")) == (0, set())


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_it_is_refused_with_its_code_and_nothing_is_written(kind, case, twins, run, tmp_path):
    path = kind.copy_twin(twins, tmp_path)
    case.break_it(path)
    before = snapshot(tmp_path)
    exit_code, codes = run(kind.command(case, path, twins / "dataset"))
    assert exit_code == 2
    assert case.code in codes
    assert snapshot(tmp_path) == before
