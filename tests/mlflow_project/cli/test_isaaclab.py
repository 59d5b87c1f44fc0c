from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import only_error

FAKE_VENV = """#!{python}
import json, sys
names = sys.argv[4:]
print(json.dumps(dict.fromkeys(names, "3.0.0")) if "isaaclab" in names else "3.12")
"""


def fake_python(path: Path) -> Path:
    """Answers as an interpreter of Python 3.12 that has IsaacLab 3.0.0."""
    path.parent.mkdir(parents=True)
    path.write_text(FAKE_VENV.format(python=sys.executable))
    path.chmod(0o755)
    return path


def test_dry_run_says_what_would_be_downloaded_and_does_nothing(invoke, tmp_path):
    python = fake_python(tmp_path / "base" / "python3.12")
    result = invoke("isaaclab", "setup", "--venv", "il", "--python", str(python), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "GB from the package index" in result.stdout
    assert "pip install --no-cache-dir torch==" in result.stdout
    assert not (tmp_path / "il").exists()


def test_a_complete_environment_is_recognised(invoke, tmp_path):
    venv = tmp_path / "il"
    fake_python(venv / "bin" / "python")
    (venv / "pyvenv.cfg").write_text("")
    result = invoke("isaaclab", "setup", "--venv", str(venv), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "complete" in result.stdout
    assert "download" not in result.stdout


def test_another_python_is_refused(invoke, tmp_path):
    only_error(invoke("isaaclab", "setup", "--venv", "il", "--python", str(tmp_path / "none")), "is not a Python 3.12")


def test_a_directory_of_something_else_is_not_touched(invoke, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter_1.tex").write_text("...")
    python = fake_python(tmp_path / "base" / "python3.12")
    result = invoke("isaaclab", "setup", "--venv", "thesis", "--python", str(python))
    only_error(result, "is not a virtual environment")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter_1.tex"]


def test_a_job_in_isaaclab_without_one_is_refused_with_the_way_to_get_it(invoke, tmp_path, monkeypatch):
    monkeypatch.delenv("ISAACLAB_PYTHON", raising=False)
    missing = tmp_path / "none" / "python"
    result = invoke("demos", "--env", "isaaclab", "--task", "stack3", "--isaaclab-python", str(missing))
    only_error(result, "is not a Python interpreter")
    assert "rlinf-isaac isaaclab setup" in result.stderr
    # What one call names is not there in the next.
    only_error(invoke("demos", "--env", "isaaclab", "--task", "stack3"), "no interpreter for IsaacLab")


@pytest.mark.parametrize("verb", ["main", "eval --ckpt-root {}", "rl --ckpt-root {}"])
def test_every_verb_that_plays_takes_the_interpreter_that_it_is_given(
    invoke, tmp_path, monkeypatch, verb, small_checkpoints
):
    monkeypatch.setenv("ISAACLAB_PYTHON", "not/this/one")
    words = [*verb.format(small_checkpoints).split(), "--env", "isaaclab", "--isaaclab-python", "none/python"]
    result = invoke(*words, "--overrides", "env.task=stack3")
    assert f"{tmp_path}/none/python is not a Python interpreter" in result.stderr
    assert "not/this/one" not in result.stderr


def test_isaaclab_has_one_task(invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("ISAACLAB_PYTHON", str(fake_python(tmp_path / "il" / "bin" / "python")))
    only_error(invoke("demos", "--env", "isaaclab", "--task", "stack2"), "three cubes")
