from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from mlflow_project.tracking import runs
from mlflow_project.tracking.labels import labels, read_labels
from mlflow_project.tracking.runs import fail_adopted_run, tracked_run
from mlflow_project.tracking.signals import Terminated
from mlflow_project.tracking.sync import sync, sync_command
from rlinf_isaac.ground.errors import InvalidJob

OUT = Path("out")


@pytest.fixture(autouse=True)
def no_fluent_leftovers():
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def test_a_new_run_in_the_default_store_and_experiment(store, content):
    with tracked_run("sft", output=OUT, tags={"git.dirty": "false"}) as run:
        run.recorder.params({"lr": 1})
    found = content(store).runs["sft"]
    assert found["status"] == "FINISHED"
    assert found["tags"]["rlinf_isaac.verb"] == "sft"
    assert found["tags"]["git.dirty"] == "false"
    assert run.outcome.pending == 0
    assert run.ids() is not None
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_verbs_inside_verbs_are_nested_and_share_one_journal(store, content):
    with tracked_run("main", output=OUT):
        with tracked_run("sft", output=OUT / "sft") as sft:
            sft.recorder.metrics({"loss": 1.0}, 1)
        of_verb = {"mlflow.source.git.commit": "c" * 40, "mlflow.user": "me", "task": "stack2"}
        with tracked_run("eval", output=OUT / "eval", tags={**of_verb, "best.checkpoint.step": "400"}) as sweep:
            sweep.recorder.start_run("step-400")
    found = content(store).runs
    assert [found[name]["parent"] for name in ("sft", "eval", "step-400")] == ["main", "main", "eval"]
    assert {run["status"] for run in found.values()} == {"FINISHED"}
    nested = of_verb | {"rlinf_isaac.verb": "eval", "mlflow.source.name": "rlinf-isaac eval"}
    assert nested.items() <= found["step-400"]["tags"].items()
    assert "best.checkpoint.step" not in found["step-400"]["tags"]
    assert len(list(Path.cwd().rglob("*.jsonl"))) == 1


def test_the_experiment_of_the_environment(store, content, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    with tracked_run("sft", output=OUT):
        pass
    assert "sft" in content(store, "mine").runs


def test_what_a_person_calls_a_run(store, content, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    chosen = read_labels("try 3", "theirs", ["team=grasping", "note=a=b"])
    with labels(chosen), tracked_run("main", output=OUT, name="main tiny"), tracked_run("sft", output=OUT):
        pass
    found = content(store, "theirs").runs
    assert set(found) == {"try 3", "sft"}
    assert {key: found["try 3"]["tags"][key] for key in ("team", "note")} == {"team": "grasping", "note": "a=b"}
    assert "team" not in found["sft"]["tags"]
    with tracked_run("sft", output=OUT):
        pass
    assert set(content(store, "mine").runs) == {"sft"}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (("", None, []), "bad-run-name"),
        ((None, "x" * 300, []), "bad-run-name"),
        ((None, None, ["team"]), "bad-tag"),
        ((None, None, ["mlflow.user=me"]), "bad-tag"),
    ],
)
def test_what_no_run_can_be_called(given, code):
    with pytest.raises(InvalidJob, match=code):
        read_labels(*given)


def test_the_run_of_mlflow_run_is_adopted_once(store, content, monkeypatch):
    client = mlflow.MlflowClient(store)
    launched = client.create_run(client.create_experiment("launched"), run_name="launched")
    monkeypatch.setenv("MLFLOW_RUN_ID", launched.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", launched.info.experiment_id)
    with tracked_run("sft", output=OUT) as run:
        assert "MLFLOW_RUN_ID" not in os.environ
        run.recorder.start_run("child").end("FINISHED")
    assert run.ids() == (launched.info.run_id, launched.info.experiment_id)
    found = content(store, "launched").runs
    assert found["launched"]["status"] == "FINISHED"
    assert found["launched"]["tags"]["rlinf_isaac.verb"] == "sft"
    assert found["child"]["parent"] == "launched"


@pytest.mark.parametrize(("given", "name"), [(None, "eval tiny"), ("mine", "mine")])
def test_mlflow_runs_own_name_for_a_run_gives_way(store, content, monkeypatch, given, name):
    client = mlflow.MlflowClient(store)
    tags = {"mlflow.project.entryPoint": "eval"}
    launched = client.create_run(client.create_experiment("launched"), run_name="orderly-croc-959", tags=tags)
    if given:  # `mlflow run --run-name`
        client.set_tag(launched.info.run_id, "mlflow.runName", given)
    monkeypatch.setenv("MLFLOW_RUN_ID", launched.info.run_id)
    with tracked_run("eval", output=OUT, name="eval tiny"):
        pass
    assert list(content(store, "launched").runs) == [name]


def test_a_stale_run_id_becomes_a_new_run(store, content, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with tracked_run("sft", output=OUT):
        pass
    assert content(store).runs["sft"]["status"] == "FINISHED"


def test_the_active_run_of_this_process_is_adopted_and_left_open(store, content):
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment("notebook")
    with mlflow.start_run(run_name="mine") as mine:
        with tracked_run("sft", output=OUT) as run:
            run.recorder.metrics({"loss": 1.0}, 1)
        assert run.ids()[0] == mine.info.run_id
        assert mlflow.get_run(mine.info.run_id).info.status == "RUNNING"
    assert content(store, "notebook").runs["mine"]["status"] == "FINISHED"
    assert sync(OUT / "journal").killed == 0


def test_an_exception_fails_the_runs_inside_and_says_why(store, content):
    def work():
        with tracked_run("main", output=OUT), tracked_run("eval", output=OUT) as sweep:
            sweep.recorder.start_run("step-400")
            raise RuntimeError("the simulator crashed")

    with pytest.raises(RuntimeError):
        work()
    found = content(store).runs
    assert {name: run["status"] for name, run in found.items()} == dict.fromkeys(("main", "eval", "step-400"), "FAILED")
    assert all("simulator crashed" in run["tags"]["failure.reason"] for run in found.values())


def test_an_active_run_keeps_its_own_status_when_the_verb_fails(store, content):
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment("notebook")
    with mlflow.start_run(run_name="mine"):

        def work():
            with tracked_run("sft", output=OUT) as run:
                run.recorder.start_run("child")
                raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            work()
    found = content(store, "notebook").runs
    assert found["mine"]["status"] == "FINISHED"
    assert found["child"]["status"] == "FAILED"
    assert "no" in found["mine"]["tags"]["failure.reason"]


@pytest.mark.parametrize(
    ("number", "error", "reason"),
    [
        (signal.SIGTERM, Terminated, "SIGTERM"),
        (signal.SIGHUP, Terminated, "SIGHUP"),
        (signal.SIGINT, KeyboardInterrupt, "SIGINT"),
    ],
)
def test_a_signal_kills_the_runs(store, content, number, error, reason):
    before = signal.getsignal(number)

    def work():
        with tracked_run("main", output=OUT), tracked_run("sft", output=OUT):
            signal.raise_signal(number)

    with pytest.raises(error) as caught:
        work()
    found = content(store).runs
    assert {run["status"] for run in found.values()} == {"KILLED"}
    assert found["sft"]["tags"]["failure.reason"] == reason
    assert signal.getsignal(number) is before
    if error is Terminated:
        assert caught.value.code == 128 + number


def test_a_second_signal_does_not_disturb_the_end(store, content, monkeypatch):
    close = runs.Uploader.close

    def close_under_fire(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)
        return close(*args, **kwargs)

    monkeypatch.setattr(runs.Uploader, "close", close_under_fire)

    def work():
        with tracked_run("sft", output=OUT):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert content(store).runs["sft"]["status"] == "KILLED"


@pytest.mark.parametrize(("code", "status"), [(0, "FINISHED"), (None, "FINISHED"), (3, "FAILED")])
def test_leaving_with_an_exit_code(store, content, code, status):
    def work():
        with tracked_run("sft", output=OUT):
            raise SystemExit(code)

    with pytest.raises(SystemExit):
        work()
    assert content(store).runs["sft"]["status"] == status


def test_a_dead_server_does_not_fail_the_work_and_the_user_is_told(dead_uri, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_uri)
    monkeypatch.setattr(runs, "PATIENCE_S", 0.1)
    with tracked_run("sft", output=OUT) as run:
        run.recorder.metrics({"loss": 1.0}, 1)
    assert run.outcome.pending == 3
    assert run.ids() is None
    assert sync_command(Path.cwd() / "out" / "journal") in caplog.text


def test_the_next_verb_puts_a_killed_one_right(store, content):
    from mlflow_project.tracking.journal import Journal
    from mlflow_project.tracking.recorder import Recorder

    dead = Journal.create(OUT / "journal", "sft", store)
    Recorder.start(dead, "predecessor", experiment="rlinf-isaac")
    dead.close()
    with tracked_run("sft", output=OUT):
        pass
    found = content(store).runs
    assert (found["predecessor"]["status"], found["sft"]["status"]) == ("KILLED", "FINISHED")


def test_a_job_that_cannot_start_makes_no_run(store, content):
    fail_adopted_run(str(InvalidJob.of("unknown-preset", "no preset 'x'", "use tiny")))
    assert content(store).runs == {}


def test_a_job_that_cannot_start_tags_the_run_of_mlflow_run(store, content, monkeypatch):
    client = mlflow.MlflowClient(store)
    launched = client.create_run(client.create_experiment("launched"), run_name="launched")
    monkeypatch.setenv("MLFLOW_RUN_ID", launched.info.run_id)
    fail_adopted_run("no preset 'x'")
    found = content(store, "launched").runs["launched"]
    assert (found["status"], found["tags"]["failure.reason"]) == ("FAILED", "no preset 'x'")


def test_a_damaged_journal_of_a_predecessor_does_not_stop_this_one(store, content, caplog):
    (OUT / "journal").mkdir(parents=True)
    (OUT / "journal" / "stranger.jsonl").write_text("{}\n")
    with tracked_run("sft", output=OUT):
        pass
    assert content(store).runs["sft"]["status"] == "FINISHED"
    assert "stranger.jsonl" in caplog.text


def test_importing_the_recording_modules_does_not_import_mlflow():
    names = [
        "recorders.sft_recorder",
        "recorders.sweep_recorder",
        "tracking.journal",
        "tracking.operations",
        "tracking.recorder",
        "tracking.runs",
        "tracking.store",
        "tracking.sync",
        "tracking.ui",
        "tracking.uploader",
        "vocabulary",
    ]
    code = f"import sys; {'; '.join(f'import mlflow_project.{name}' for name in names)}"
    code += "; sys.exit(bool({'mlflow', 'torch', 'pandas', 'pyarrow', 'scipy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
