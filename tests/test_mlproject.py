"""MLproject is what the verbs' options make it, and every verb has a file and a test file."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from mlflow.projects._project_spec import EntryPoint

from mlflow_project.cli import TERMINAL_VERBS, VERBS, VerbGroup
from mlflow_project.cli._mlproject import mlproject

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
    assert set(VERBS) == modules
    assert set(VERBS) - set(TERMINAL_VERBS) == set(ENTRY_POINTS)
    assert set(VERBS) <= tests


def test_the_file_is_what_is_printed():
    assert (PROJECT / "MLproject").read_text() == mlproject(), "python -m mlflow_project.cli._mlproject > MLproject"


@pytest.mark.parametrize("verb", ENTRY_POINTS)
def test_placeholders_stand_bare(verb):
    assert re.findall(r"[\"'`$;|&<>\\]", ENTRY_POINTS[verb]["command"]) == []


@pytest.mark.parametrize("verb", ENTRY_POINTS)
def test_what_mlflow_passes_by_default_is_the_default(verb):
    spec, command = ENTRY_POINTS[verb], command_of(verb)
    given = {name: "x" for name, parameter in spec["parameters"].items() if "default" not in parameter}
    if "action" in given:
        given["action"] = {
            "bundle": "make",
            "config": "show",
            "dataset": "import",
            "isaaclab": "setup",
            "task": "init",
        }[verb]
    if verb == "completion":
        given["shell"] = "bash"
    words = shlex.split(EntryPoint(verb, spec["parameters"], spec["command"]).compute_command(given, None))
    assert words[:4] == ["python", "-m", "mlflow_project.cli", verb]
    context = command.make_context(verb, words[4:])
    for each in command.params:
        if each.nargs == -1:
            assert context.params[each.name] == (given.get(each.name, "none"),)
        else:
            expected = given[each.name] if each.required else each.default
            assert context.params[each.name] == each.type_cast_value(context, expected)


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
    spec = ENTRY_POINTS["norm_stats"]
    entry = EntryPoint("norm_stats", spec["parameters"], spec["command"])
    command = entry.compute_command({"dataset": value}, str(tmp_path)).replace("python -m", "printf '%s\\0'", 1)
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert value in result.stdout.split("\0")
    assert list(tmp_path.iterdir()) == []
