"""How findings are shown: once for several checkpoints, digests in short, and nothing cut where it is no terminal."""

from __future__ import annotations

import io

import pytest
from click.testing import CliRunner
from rich.table import Table

from mlflow_project.cli import GROUPS, VERBS, cli
from mlflow_project.cli._findings import grouped, short
from mlflow_project.tracking.terminal import SafeConsole
from rlinf_isaac.ground.errors import Problem

DIGEST = "0123456789ab" + 52 * "c"


def test_the_same_of_several_checkpoints_is_said_once():
    problems = [
        *(Problem("norm-stats-mismatch", f"/c/{step} was trained with {DIGEST}", "leave it") for step in (400, 800)),
        Problem("norm-stats-mismatch", "/c/1200 was trained with another", "leave it"),
        Problem("no-gpu", "no GPU", "pass --device cpu"),
    ]
    assert [problem.cause for problem in grouped(problems)] == [
        f"/c/{{400,800}} was trained with {DIGEST}",
        "/c/1200 was trained with another",
        "no GPU",
    ]
    assert grouped([Problem("x", f"/{name}/1 is bad", "y") for name in "ab"])[0].cause == "/a/1, /b/1 is bad"
    assert grouped([Problem("x", "same", "y"), Problem("x", "same", "y", "warning")])[1].level == "warning"


def test_digests_are_short_and_run_ids_are_not():
    assert short(f"trained with {DIGEST}, run {'a' * 32}") == f"trained with 0123456789ab..., run {'a' * 32}"


def test_a_table_in_a_pipe_is_not_cut(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    console = SafeConsole(file=io.StringIO(), soft_wrap=True)
    table = Table("a", "b")
    table.add_row("x" * 150, "y" * 150)
    console.print(table)
    assert f"{'x' * 150} │ {'y' * 150}" in console.file.getvalue()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sft", "--resume", "x"], "Resuming is automatic"),
        (["sft", "--learning-rate", "1"], "It is --lr."),
        (["eval", "--checkpoint", "x"], "--ckpt-root"),
        (["sft", "--stepss", "5"], "Did you mean '--steps'?"),
    ],
)
def test_what_others_call_an_option(words, told):
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert told in result.stderr


def test_the_help_has_the_defaults_of_the_preset_and_types():
    told = " ".join(CliRunner().invoke(cli, ["sft", "--help"]).stdout.split())
    assert "--lr FLOAT Peak learning rate. [default: 1e-3, preset tiny; greater than 0]" in told
    told = " ".join(CliRunner().invoke(cli, ["sft", "--preset=pi05", "--help"]).stdout.split())
    assert "--steps INTEGER Optimiser steps. [default: 30000, preset pi05; greater than 0]" in told
    told = " ".join(CliRunner().invoke(cli, ["rl", "--help"]).stdout.split())
    assert "--algorithm [ppo|grpo]" in told


def test_the_root_help_cuts_no_line():
    told = " ".join(CliRunner().invoke(cli, ["--help"]).stdout.split())
    for heading, verbs in GROUPS.items():
        assert f" {heading}: {' '.join(f'{verb} {words}' for verb, words in verbs.items())}" in told
    assert {verb for verbs in GROUPS.values() for verb in verbs} == set(VERBS)
