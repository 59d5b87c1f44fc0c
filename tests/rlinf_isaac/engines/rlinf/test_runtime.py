"""What the setup scripts of a site leave in the environment."""

from __future__ import annotations

import os
import sys

import pytest

from rlinf_isaac.engines.rlinf.runtime import PACKAGE_ROOT, Runtime, prepared_environment, sourced_environment
from rlinf_isaac.ground.errors import InvalidJob


def script(tmp_path, text: str, name: str = "setup.sh") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_scripts_are_sourced_in_order_with_what_those_before_left(tmp_path):
    first = script(tmp_path, "export FIRST=1", "first.sh")
    second = script(tmp_path, 'export SECOND="$FIRST and 2"', "second.sh")
    environment = sourced_environment((first, second))
    assert environment["SECOND"] == "1 and 2"


@pytest.mark.parametrize(
    "text",
    [
        'if [ -n "$ZSH_VERSION" ]; then exit 1; fi',  # Isaac Sim's
        'case "$PS1" in *x*) ;; esac',  # conda's
        "false\nunset NOT_SET",
    ],
)
def test_scripts_that_would_not_survive_nounset_or_errexit(tmp_path, text):
    assert sourced_environment((script(tmp_path, f"{text}\nexport REACHED=yes"),))["REACHED"] == "yes"


def test_values_of_several_lines_and_what_a_script_prints(tmp_path, capfd):
    environment = sourced_environment((script(tmp_path, "echo \"A=from the output\"\nexport TWO=$'one\\ntwo=2'"),))
    assert environment["TWO"] == "one\ntwo=2"
    assert "A" not in environment
    assert "A=from the output" in capfd.readouterr().err


def test_a_script_sees_no_arguments_and_may_change_path(tmp_path):
    environment = sourced_environment((script(tmp_path, "export ARGUMENTS=$#\nexport PATH=/nowhere"),))
    assert environment["ARGUMENTS"] == "0"
    assert environment["PATH"] == "/nowhere"


def test_a_directory_is_a_virtual_environment(tmp_path):
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").write_text("export VIRTUAL_ENV=here")
    assert sourced_environment((str(tmp_path / "venv"),))["VIRTUAL_ENV"] == "here"


@pytest.mark.parametrize(("text", "code"), [("exit 3", "setup-script-failed"), (None, "no-setup-script")])
def test_what_cannot_be_sourced_is_refused(tmp_path, text, code):
    path = script(tmp_path, text) if text else str(tmp_path / "missing.sh")
    with pytest.raises(InvalidJob, match=code) as caught:
        prepared_environment(Runtime(source=(path,)))
    assert path in str(caught.value)


def test_auto_setup_env_0_leaves_the_scripts_out(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTO_SETUP_ENV", "0")
    assert "FROM_SCRIPT" not in prepared_environment(Runtime(source=(script(tmp_path, "export FROM_SCRIPT=1"),)))


def test_the_project_is_importable_and_mlflow_is_left_out(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    environment = prepared_environment(Runtime())
    assert environment["PYTHONPATH"] == f"{PACKAGE_ROOT}{os.pathsep}/theirs"
    assert not [name for name in environment if name.startswith("MLFLOW_")]


def test_what_a_surrounding_ray_job_hands_on_is_left_out(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {"working_dir": "gcs://package.zip"}}')
    assert "RAY_JOB_CONFIG_JSON_ENV_VAR" not in prepared_environment(Runtime())


def test_the_default_interpreter_is_this_one():
    assert Runtime().interpreter == sys.executable


def test_the_interpreter_is_that_of_a_sourced_virtual_environment(tmp_path, monkeypatch):
    activate = tmp_path / "venv/bin/activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("")
    source = (str(tmp_path / "venv"), "setup.sh")
    assert Runtime(source=source).interpreter == str(tmp_path / "venv/bin/python")
    assert Runtime(source=source, python="python3.12").interpreter == "python3.12"
    assert Runtime(source=("setup.sh",)).interpreter == sys.executable
    monkeypatch.setenv("AUTO_SETUP_ENV", "0")
    assert Runtime(source=source).interpreter == sys.executable
