from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import SMALL_PRESET

from rlinf_isaac.preflight.environment import Component

PROJECT = Path(__file__).parents[3]
SMALL = ["--preset", str(SMALL_PRESET)]


def report_of(result):
    return json.loads(result.stdout)


def codes(result):
    return [problem["code"] for problem in report_of(result)["problems"]]


def test_alone_it_describes_this_machine(invoke, tmp_path):
    result = invoke("doctor", "--json")
    assert result.exit_code == 0, result.output
    names = {component["name"] for component in report_of(result)["environment"]}
    assert {"Python", "torch", "mlflow", "mujoco", "EGL", "ray", "rlinf", "isaaclab", "NVIDIA GPU"} <= names
    text = invoke("doctor").stdout
    assert "ready        yes" in text
    assert "This machine" in text


def test_the_way_to_get_a_component_is_printed_as_it_is_typed(invoke, monkeypatch):
    component = Component("Thing", None, False, "a use", "pip install 'a[b]'")
    monkeypatch.setattr("rlinf_isaac.preflight.environment.inspect_environment", lambda: ([component], []))
    assert "'a[b]'" in invoke("doctor").stdout


def test_a_job_that_can_start(invoke, small_dataset, small_checkpoints, tmp_path):
    for job in (
        ["sft", "--dataset", small_dataset, *SMALL],
        ["eval", "--ckpt-root", small_checkpoints, "--ckpt-steps", "2,6"],
        ["rl", "--ckpt-root", small_checkpoints, "--ckpt-steps", "2,6"],
        ["demos", *SMALL],
        ["main", *SMALL],
    ):
        result = invoke("doctor", *job, "--json")
        assert result.exit_code == 0, result.output
        assert report_of(result)["ok"] is True
        assert codes(result) == []
        assert report_of(result)["job"] == [str(word) for word in job]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_dataset_against_a_task(invoke, small_dataset):
    assert codes(invoke("doctor", "--dataset", small_dataset, "--task", "stack2", *SMALL, "--json")) == []
    result = invoke("doctor", "--dataset", small_dataset, "--task", "stack3", *SMALL, "--json")
    assert result.exit_code == 2
    assert "prompt" in codes(result)
    assert report_of(result)["task"] == "stack3"
    assert codes(invoke("doctor", "--task", "stack4", "--json")) == ["unknown-task"]
    alone = invoke("doctor", "--task", "stack2", "--json")
    assert (codes(alone), report_of(alone)["task"]) == ([], "stack2")


def test_a_dataset_is_found_by_leaf_home_and_repo_id(invoke, small_dataset, monkeypatch, tmp_path):
    home, name = small_dataset.parent, small_dataset.name
    places = [
        [small_dataset],
        [home, "--repo-id", name],
        [tmp_path / "link" / name],
        [tmp_path / "link", "--repo-id", name],
    ]
    (tmp_path / "link").symlink_to(home)
    before = dict(os.environ)
    for place in places:
        result = invoke("doctor", "sft", "--dataset", *place, *SMALL, "--json")
        assert result.exit_code == 0, result.output
        assert dict(os.environ) == before
    monkeypatch.setenv("HF_LEROBOT_HOME", str(home))
    assert invoke("doctor", "--dataset", name).exit_code == 0
    assert codes(invoke("doctor", "--dataset", home, "--json")) == ["dataset-not-found"]


@pytest.mark.parametrize("switches", [["--json", "sft"], ["sft", "--json", "true"], ["--json", "true", "sft"]])
def test_switches_may_stand_anywhere(invoke, small_dataset, switches):
    result = invoke("doctor", *switches, "--dataset", small_dataset, *SMALL)
    assert result.exit_code == 0, result.output
    assert report_of(result)["ok"] is True


def test_a_job_in_one_word_is_split_as_by_a_shell(invoke, small_checkpoints):
    result = invoke("doctor", "--json", f"eval --ckpt-root '{small_checkpoints}' --ckpt-steps '2 6'")
    assert result.exit_code == 0, result.output
    assert report_of(result)["job"][-1] == "2 6"


def test_all_problems_of_a_job_come_at_once_with_the_codes_of_the_verb(invoke, small_dataset):
    job = ["sft", "--dataset", small_dataset, "--norm-stats", "nowhere.json", *SMALL]
    job += ["--overrides", "policy.state_layout=proprio"]
    result = invoke("doctor", *job, "--json")
    assert result.exit_code == 2
    assert {"feature-dim", "norm-stats-missing"} <= set(codes(result))
    verb = invoke(*job)
    assert verb.exit_code == 2
    assert all(code in verb.stderr for code in codes(result))
    assert all({"code", "level", "cause", "cure"} == set(problem) for problem in report_of(result)["problems"])


def test_a_plan_for_reinforcement_learning_shows_every_fault_the_verb_would(invoke, small_checkpoints):
    overrides = "rl.workers=3,rl.first_seed=5000,rl.noise_steps=9"
    job = ["rl", "--ckpt-root", small_checkpoints, "--overrides", overrides]
    result = invoke("doctor", *job, "--json")
    assert result.exit_code == 2
    assert set(codes(result)) == {"rl-workers", "rl-seeds", "rl-noise"}
    verb = invoke(*job)
    assert verb.exit_code == 2
    assert all(code in verb.stderr for code in codes(result))


def test_text_shows_code_cause_and_cure(invoke, small_checkpoints):
    result = invoke("doctor", "eval", "--ckpt-root", small_checkpoints, "--overrides", "policy.action_chunk=4")
    assert result.exit_code == 2
    assert "error action-chunk-mismatch" in result.stdout
    assert "cure " in result.stdout
    assert "ready        no" in result.stdout


def test_a_dataset_is_described_and_compared_with_a_preset(invoke, small_dataset):
    result = invoke("doctor", "--dataset", small_dataset, "--full", "--json")
    assert result.exit_code == 0, result.output
    report = report_of(result)
    assert (report["task"], report["state_layout"]) == ("stack2", "proprio+cubes")
    result = invoke("doctor", "--dataset", small_dataset, "--preset", "pi05", "--json")
    assert result.exit_code == 2
    assert {"feature-dim", "prompt"} <= set(codes(result))
    assert codes(invoke("doctor", "--dataset", "nowhere", "--json")) == ["dataset-not-found"]


def test_a_preset_is_checked_by_itself_and_beside_a_job(invoke, small_checkpoints):
    assert codes(invoke("doctor", "--preset", "tinny", "--json")) == ["unknown-preset"]
    assert "ready        no  1 error, 0 warnings  tinny" in invoke("doctor", "--preset", "tinny").stdout
    result = invoke("doctor", "--preset", SMALL_PRESET, "--json")
    assert result.exit_code == 0, result.output
    assert (codes(result), report_of(result)["preset"]) == ([], str(SMALL_PRESET))
    assert report_of(result)["environment"], "the machine is described, too"
    Path("mine.yaml").write_text(
        "base: tiny\nsft: {batch_size: 5}\ncompute: {num_processes: 2}\npolicy: {tokenizer: x.model}\n"
    )
    result = invoke("doctor", "--preset", "mine.yaml", "--json", "eval", "--ckpt-root", small_checkpoints)
    assert result.exit_code == 2
    assert set(codes(result)) == {"batch-processes", "no-tokenizer"}


@pytest.mark.parametrize("job", [["sync"], ["dance"], ["--dataste", "x"], ["sft"]])
def test_an_unknown_job_or_option_is_a_usage_error(invoke, job):
    result = invoke("doctor", *job)
    assert result.exit_code == 2
    assert "Usage" in result.stderr or "Error" in result.stderr


def test_neither_torch_nor_mlflow_nor_a_simulator_is_imported(small_dataset, small_checkpoints, tmp_path):
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom mlflow_project.cli import cli\n"
        f"for job in ({['sft', '--dataset', str(small_dataset), *SMALL]!r},"
        f" {['eval', '--ckpt-root', str(small_checkpoints)]!r}, {['rl', '--ckpt-root', str(small_checkpoints)]!r},"
        f" ['--dataset', {str(small_dataset)!r}], []):\n"
        "    result = CliRunner().invoke(cli, ['doctor', *job])\n"
        "    assert result.exit_code == 0, result.output\n"
        "print([name for name in ('torch', 'mujoco', 'mlflow', 'ray') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []
