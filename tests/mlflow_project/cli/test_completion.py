"""`completion` prints a script that a real bash takes; what it asks for has the values of options."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from mlflow_project.cli import cli
from rlinf_isaac.config import preset_names


def proposed(*words):
    *before, last = words
    return [item.value for item in ShellComplete(cli, {}, "rlinf-isaac", "X").get_completions(list(before), last)]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_program(shell):
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_RLINF_ISAAC_COMPLETE" in result.stdout


def test_a_real_bash_completes_a_preset(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    program = tmp_path / "rlinf-isaac"
    call = "from mlflow_project.cli import cli; cli(prog_name='rlinf-isaac')"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{call}" "$@"\n')
    program.chmod(0o755)
    script = CliRunner().invoke(cli, ["completion", "bash"]).stdout
    ask = "COMP_WORDS=(rlinf-isaac sft --preset pi05_b); COMP_CWORD=3; _rlinf_isaac_completion rlinf-isaac"
    done = subprocess.run(
        ["bash", "-c", f'PATH={tmp_path}:$PATH\n{script}\n{ask}\necho "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "pi05_base", done.stderr


def test_values_are_proposed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "eval" in proposed("ev")
    assert proposed("sft", "--preset", "") == preset_names()
    assert "stack2" in proposed("main", "--task", "st")
    assert proposed("sft", "--engine", "r") == ["rlinf"]
    assert proposed("rl", "--algorithm", "") == ["ppo", "grpo"]
    assert "--ckpt-steps" in proposed("eval", "--ckpt-s")


def test_the_steps_below_a_training_are_proposed(tmp_path):
    for step in (400, 800):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
        (tmp_path / "checkpoints" / str(step) / "bundle.json").write_text("{}")
    assert proposed("eval", "--ckpt-root", str(tmp_path), "--ckpt-steps", "") == ["400", "800"]
    assert proposed("eval", "--ckpt-root", str(tmp_path), "--ckpt-steps", "400,") == ["400,800"]
