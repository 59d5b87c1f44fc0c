"""Names of bases that lead nowhere. (Those that lead to one are in cli/test_sft_base.py.)"""

from __future__ import annotations

import pytest

from mlflow_project.serving.base_source import locate_base
from rlinf_isaac.ground.errors import InvalidJob


def cure_of(text: str) -> str:
    with pytest.raises(InvalidJob) as error:
        locate_base(text)
    (problem,) = error.value.problems
    assert problem.code == "missing-base"
    return problem.cure


def test_what_lies_beside_it_under_nearly_that_name_is_proposed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for step in ("checkpoints/0400", "checkpoints/1200"):
        (tmp_path / step).mkdir(parents=True)
    assert cure_of(f"{tmp_path}/checkpoints/1201") == f"did you mean {tmp_path}/checkpoints/1200?"
    assert cure_of("checkpoint") == "did you mean checkpoints?"


@pytest.mark.parametrize("text", ["something/else", "x", "checkpoints/else", "a\0b/c", "models:/a name"])
def test_otherwise_what_can_be_named_is_said(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints/1200").mkdir(parents=True)
    assert cure_of(text).startswith("name a checkpoint's directory or file")
