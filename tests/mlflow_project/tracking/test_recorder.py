from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_project.tracking.journal import Journal, read_header, read_operations
from mlflow_project.tracking.operations import EndRun, LogArtifact, LogMetrics, LogModel, LogParams, SetTags, StartRun
from mlflow_project.tracking.recorder import LONGEST_PARAM, LONGEST_TAG, Recorder, flatten, metric_key


@pytest.fixture
def run(tmp_path):
    journal = Journal.create(tmp_path / "journal", "sft", "uri")
    yield Recorder.start(journal, "run", tags={"a": 1})
    journal.close()


def recorded(run, kind):
    path = run.journal.path
    operations = read_operations(path, read_header(path)[1])[0]
    return [operation for operation, _ in operations if isinstance(operation, kind)]


def test_params_are_flat_and_prefixed(run):
    run.params({"sft": {"lr": 1e-3, "betas": [0.9, 0.95]}, "resume": None, "pi05": False})
    (operation,) = recorded(run, LogParams)
    assert operation.params == {
        "cfg/sft/lr": "0.001",
        "cfg/sft/betas": "[0.9, 0.95]",
        "cfg/resume": "none",
        "cfg/pi05": "False",
    }


def test_a_text_that_is_logged_again_leaves_the_earlier_one_to_a_server_that_is_behind(run):
    run.text("page.html", "first", fill_in=True)
    run.text("page.html", "second", fill_in=True)
    operations = recorded(run, LogArtifact)
    assert [Path(each.source).read_text() for each in operations] == ["first", "second"]
    assert {(each.target, each.fill_in) for each in operations} == {("page.html", True)}


def test_all_tables_of_a_run_stay_tables(run):
    run.table("a.json", [{"x": 1}])
    run.table("b.json", [{"x": 2}])
    *_, last = recorded(run, SetTags)
    assert [each["path"] for each in json.loads(last.tags["mlflow.loggedArtifacts"])] == ["a.json", "b.json"]


def test_a_long_param_is_replaced_by_its_digest_and_kept_whole_in_the_artifact(run):
    prompt = "x" * (LONGEST_PARAM + 1)
    run.config({"prompt": prompt})
    (params,) = recorded(run, LogParams)
    assert params.params["cfg/prompt"].startswith(f"{LONGEST_PARAM + 1} characters, sha256 ")
    (artifact,) = recorded(run, LogArtifact)
    assert json.loads(Path(artifact.source).read_text())["prompt"] == prompt


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
@settings(deadline=None)
def test_flattened_keys_and_values_are_what_mlflow_accepts(values):
    from mlflow.utils.validation import _validate_param

    for key, value in flatten({"x": values}, "cfg").items():
        if not key.endswith(("/", ".", "/..")) and "//" not in key and "/./" not in key and "/../" not in key:
            _validate_param(key, value)


def test_a_key_keeps_what_mlflow_accepts():
    assert metric_key("eval/success@5 (µ)") == "eval/success_5 ___"
    assert metric_key("a-b_c.d:e/f 1") == "a-b_c.d:e/f 1"


def test_metrics_keep_the_time_of_the_event(run):
    run.metrics({"train/loss": 1}, 20, time_s=12.3456)
    run.metrics({}, 21)
    assert recorded(run, LogMetrics) == [LogMetrics(run.run, 20, 12346, {"train/loss": 1.0})]


def test_a_directory_becomes_its_files(run, tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "1.txt").touch()
    (tmp_path / "d" / "e" / "2.txt").touch()
    run.artifact("d", "results")
    assert [operation.target for operation in recorded(run, LogArtifact)] == ["results/1.txt", "results/e/2.txt"]
    assert all(Path(operation.source).is_absolute() for operation in recorded(run, LogArtifact))


def test_long_tags_are_cut_with_a_mark(run):
    run.tags({"note": "x" * (LONGEST_TAG + 1)})
    value = recorded(run, SetTags)[0].tags["note"]
    assert len(value) <= LONGEST_TAG
    assert value.endswith("(cut off)")


def test_a_model_name_has_no_characters_mlflow_refuses(run):
    run.model("f" * 64, "pi0/tiny: 50%", "output", 1)
    assert recorded(run, LogModel)[0].name == "pi0-tiny- 50-"


def test_ending_ends_what_is_open_inside_and_nothing_else(run):
    finished, running = run.start_run("finished"), run.start_run("running")
    inner = running.start_run("inner")
    innermost = inner.start_run("innermost")
    finished.end("FINISHED")
    running.end("FAILED", "broken")
    assert [(end.run, end.status) for end in recorded(run, EndRun)] == [
        (finished.run, "FINISHED"),
        (innermost.run, "FAILED"),
        (inner.run, "FAILED"),
        (running.run, "FAILED"),
    ]
    assert {tags.run for tags in recorded(run, SetTags)} == {innermost.run, inner.run, running.run}
    assert list(run.journal.open_runs) == [run.run]


def test_a_closed_run_stays_as_it_is(run):
    run.end("FINISHED")
    run.end("KILLED", "too late")
    assert [end.status for end in recorded(run, EndRun)] == ["FINISHED"]


def test_a_run_left_to_its_owner_has_no_status(run):
    child = run.start_run("child")
    run.end("FAILED", "x", leave_to_owner=True)
    assert [(end.run, end.status) for end in recorded(run, EndRun)] == [(child.run, "FAILED"), (run.run, None)]


def test_a_nested_run_names_its_parent(run):
    child = run.start_run("child", {"k": 1})
    assert recorded(run, StartRun)[1] == StartRun(
        child.run, "child", recorded(run, StartRun)[1].time_ms, run.run, {"k": "1"}
    )
