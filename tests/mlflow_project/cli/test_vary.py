"""`eval --vary`: the same seeds along each axis, beside the control."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import kill_when, only_error, shown

from mlflow_project.comparison.compare import compare
from mlflow_project.comparison.evaluations import evaluations_of, read_evaluations
from mlflow_project.comparison.report import render
from mlflow_project.comparison.robustness import robustness_metrics
from mlflow_project.retention.inventory import take

SHORT = "env.max_episode_steps=24"


def files_of(output: Path) -> dict[str, bytes]:
    """Axis and name of the checkpoint's directory -> its rows, as they are on disk."""
    found = {}
    for settings in output.rglob("settings.json"):
        axis = json.loads(settings.read_text()).get("vary", {}).get("axis", "control")
        for rows in settings.parent.glob("*/episodes.jsonl"):
            lines = sorted(rows.read_bytes().splitlines(), key=lambda line: json.loads(line)["seed"])
            found[f"{axis} {rows.parent.name.partition('-')[0]}"] = b"\n".join(lines)
    return found


@pytest.mark.slow
def test_killed_in_an_arm_and_started_again(invoke, start, store, small_checkpoints, tmp_path):
    words = ("eval", "--ckpt-root", small_checkpoints, "--ckpt-steps", "2,6", "--overrides", SHORT, "--episodes", 4)
    varied = (*words, "--output", "out", "--videos", 1, "--vary", "light,delay")
    kill_when(start(*varied), shown("eval step-6 light", 2))
    survived = files_of(tmp_path / "out")
    assert {"control 2", "control 6", "light 2"} <= survived.keys()
    assert not any(key[:5] == "delay" for key in survived)
    result = invoke(*varied)
    assert result.exit_code == 0, result.output
    assert "Robustness of step-2: light" in result.stdout
    rows = files_of(tmp_path / "out")
    assert rows["light 2"] == survived["light 2"]
    assert rows.keys() == {f"{arm} {step}" for arm in ("control", "light", "delay") for step in (2, 6)}
    assert len(list((tmp_path / "out").rglob("episode_*.mp4"))) == 2 * 3, "each arm is filmed"

    # The control is the evaluation that it is without --vary, byte by byte.
    assert invoke(*words, "--output", "plain", "--videos", 0).exit_code == 0
    plain = files_of(tmp_path / "plain")
    without_films = {key: b"\n".join(_unfilmed(line) for line in rows[key].splitlines()) for key in plain}
    assert without_films == plain
    assert plain.keys() == {"control 2", "control 6"}

    # Nothing takes an arm for an evaluation: not the store, and not the inventory of `clean`.
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    arms = [run for run in runs if "vary.axis" in run.data.tags and run.info.status == "FINISHED"]
    assert {(run.data.tags["vary.axis"], run.data.tags["about.checkpoint"]) for run in arms} >= {
        (axis, step) for axis in ("light", "delay") for step in ("step-2", "step-6")
    }
    assert not any(name.startswith("eval/") for run in arms for name in run.data.metrics)
    assert len(take(tmp_path / "out").evaluations) == 1
    whole = [run for run in runs if run.data.tags.get("vary.axes") == "light,delay"]
    (parent,) = {run.data.tags["mlflow.parentRunId"] for run in whole}
    evaluations = read_evaluations(client, [parent])
    assert [each.step for each in evaluations] == [2, 6]
    assert all(len(each.varied) == 2 for each in evaluations)
    assert len(evaluations_of(client, evaluations[0].checkpoint)) == 3, "the killed, the whole and the plain one"
    page = render(compare(evaluations), "sweep")
    assert 'id="robustness"' in page
    assert "By the older success rule" in page
    logged = client.get_run(evaluations[0].run).data.metrics
    assert {key: logged[key] for key in robustness_metrics(evaluations[0])} == robustness_metrics(evaluations[0])
    assert logged["eval/success_touched"] == 0 == logged["robustness/delay/difference"]
    files = {file.path for file in client.list_artifacts(parent)}
    assert {"robustness.json", "comparison.html"} <= files


@pytest.mark.parametrize(
    ("more", "code"), [(["--vary", "wind"], "bad-value"), (["--vary", "mass", "--until-decided"], "vary-until-decided")]
)
def test_refused_before_anything_starts(invoke, small_checkpoints, tmp_path, more, code):
    only_error(invoke("eval", "--ckpt-root", small_checkpoints, "--output", "out", *more), code)
    assert not (tmp_path / "out").exists()


def _unfilmed(line: bytes) -> bytes:
    values = json.loads(line)
    return json.dumps(values | {"video": None}).encode()
