"""MLproject, the command line and the tests name the same verbs, with the same options and defaults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from mlflow_project.cli import VERBS, VerbGroup

PROJECT = Path(__file__).parents[1]
ENTRY_POINTS = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]


def command_of(verb: str) -> click.Command:
    command = VerbGroup().get_command(click.Context(click.Command("test")), verb)
    assert command is not None
    return command


def test_a_verb_is_an_entry_point_a_file_and_a_test_file():
    modules = {path.stem for path in (PROJECT / "mlflow_project" / "cli").glob("[a-z]*.py")}
    tests = {
        path.stem.removeprefix("test_") for path in (PROJECT / "tests" / "mlflow_project" / "cli").glob("test_*.py")
    }
    assert set(VERBS) == set(ENTRY_POINTS) == modules
    assert set(VERBS) <= tests


@pytest.mark.parametrize("verb", VERBS)
def test_options_and_defaults_agree(verb):
    parameters = ENTRY_POINTS[verb]["parameters"]
    options = {option.name: option for option in command_of(verb).params}
    assert set(parameters) == set(options)
    for name, parameter in parameters.items():
        assert parameter["type"] == "string", "MLflow checks no other type, and `path` is relative to the caller"
        if options[name].required:
            assert "default" not in parameter
        elif options[name].nargs == -1:
            assert parameter["default"] == "none"
        else:
            assert str(parameter["default"]) == str(options[name].default)
            assert parameter["default"] != "", "MLflow records an empty string as ''"


@pytest.mark.parametrize("verb", VERBS)
def test_placeholders_stand_bare_and_are_passed_once(verb):
    command = ENTRY_POINTS[verb]["command"]
    assert re.findall(r"[\"'`$;|&<>\\]", command) == []
    assert command.startswith(f"python -m mlflow_project.cli {verb} ")
    words = command.split()[4:]
    parameters = {parameter.name: parameter for parameter in command_of(verb).params}
    expected = []
    for name in ENTRY_POINTS[verb]["parameters"]:
        expected += [parameters[name].opts[0]] if isinstance(parameters[name], click.Option) else []
        expected.append(f"{{{name}}}")
    assert words == expected


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb):
    assert f"rlinf-isaac {verb}" in (command_of(verb).epilog or "")


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_required_option_is_a_usage_error(verb):
    from click.testing import CliRunner

    if any(parameter.required for parameter in command_of(verb).params):
        result = CliRunner().invoke(command_of(verb), [])
        assert result.exit_code == 2
        assert "Missing" in result.stderr


@pytest.mark.parametrize(("typed", "meant"), [("evl", "'eval'"), ("norm-stat", "'norm_stats'"), ("xyz", None)])
def test_a_misspelt_verb(typed, meant):
    from click.testing import CliRunner

    from mlflow_project.cli import cli

    result = CliRunner().invoke(cli, [typed, "--dataset", "x"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"No such command {typed!r}." in result.stderr
    assert ("Did you mean" in result.stderr) == (meant is not None)
    assert meant is None or f"Did you mean {meant}?" in result.stderr


def test_help_of_all_verbs_imports_nothing_heavy():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom mlflow_project.cli import VERBS, cli\n"
        "for arguments in [['--help'], *([verb, '--help'] for verb in VERBS)]:\n"
        "    result = CliRunner().invoke(cli, arguments)\n"
        "    assert result.exit_code == 0, result.output\n"
        "print([name for name in ('torch', 'mujoco', 'mlflow', 'ray', 'pyarrow') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "value", ["$(touch pwned)", "`touch pwned`", "x; touch pwned", "'; touch pwned; '", "x\ntouch pwned"]
)
def test_values_reach_the_verb_as_one_word(tmp_path, value):
    """What `mlflow run` hands to bash, with the verb replaced by a printer of its words."""
    from mlflow.projects._project_spec import EntryPoint

    spec = ENTRY_POINTS["norm_stats"]
    entry = EntryPoint("norm_stats", spec["parameters"], spec["command"])
    command = entry.compute_command({"dataset": value}, str(tmp_path)).replace("python -m", "printf '%s\\0'", 1)
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert value in result.stdout.split("\0")
    assert list(tmp_path.iterdir()) == []
