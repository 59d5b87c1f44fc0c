"""`doctor env`, from its words to what a run says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

TOY = Path(__file__).parents[2] / "rlinf_isaac" / "envs" / "conformance" / "toy.py"
FLIGHT = {
    "name": "flight",
    "prompt": "Fly to the middle.",
    "control_hz": 10,
    "cameras": {
        "base_0_rgb": {"dataset": "observation.images.above", "env": "pixels/above"},
        "left_wrist_0_rgb": {"dataset": "observation.images.carried", "env": "pixels/carried"},
    },
    "state": {"dims": 3, "env": "point"},
    "action": {"dims": 3, "clip": [-1, 1]},
    "env": {"kind": "gymnasium", "make": "toy.py:Flight", "success": "info.solved", "max_steps": 40},
    "expert": "toy.py:Expert",
}


@pytest.fixture
def flight(tmp_path, monkeypatch):
    """Writes the task, with options of its environment, into an empty directory; gives its file."""
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "toy.py").write_bytes(TOY.read_bytes())

    def write(**options) -> Path:
        file = tmp_path / "flight.yaml"
        file.write_text(yaml.safe_dump(FLIGHT | {"env": FLIGHT["env"] | {"options": options}}))
        return file

    return write


def test_a_warning_is_shown_and_said_in_the_runs_that_play_there(invoke, flight, content, store):
    file = flight(fps=30)
    result = invoke("doctor", "env", "--task", file, "--episodes", "20")
    assert result.exit_code == 0, result.output
    assert "warning env-control-rate" in result.stdout
    assert "20 episodes of 40 steps" in " ".join(result.stdout.replace("│", " ").split())
    assert "ready        yes  0 errors, 1 warning" in result.stdout
    assert invoke("demos", "--task", file, "--episodes", "1").exit_code == 0
    (run,) = content(store).runs.values()
    assert run["tags"]["env.findings"] == "env-control-rate"


def test_errors_have_exit_code_2_and_json_has_every_check(invoke, flight):
    result = invoke("doctor", f"env --task {flight(fault='unseeded')}", "--json")
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    assert [problem["code"] for problem in report["problems"]] == ["env-unseeded"]
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["a seed gives the same start"]["problems"] == ["env-unseeded"]
    assert checks["rows are apart"]["result"] == "skipped"
    assert report["identity"]["task"] == "flight"
    assert report["facts"]["step_ms"] > 0


def test_what_keeps_it_from_starting_is_found_first(invoke, flight, tmp_path):
    for words, code in (
        (["--task", "flihgt"], "unknown-task"),
        (["--task", flight(), "--env-python", tmp_path / "nowhere"], "no-env-python"),
        (["--task", flight(), "--dataset", tmp_path / "nothing"], "dataset-not-found"),
        (["--task", flight(), "--episodes", "-1"], "bad-value"),
        (["--task", flight(unknown=1)], "env-not-made"),
    ):
        result = invoke("doctor", "--json", "env", *words)
        assert result.exit_code == 2, result.output
        assert [problem["code"] for problem in json.loads(result.stdout)["problems"]] == [code]


def test_its_options_are_shown(invoke):
    result = invoke("doctor", "env", "--help")
    assert result.exit_code == 0
    assert "--env-python" in result.stdout
