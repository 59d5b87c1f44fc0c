from __future__ import annotations

import signal

from mlflow import MlflowClient
from support import SMALL_PRESET, kill_when, only_error

from rlinf_isaac.data.lerobot.reader import LeRobotDataset

SMALL = ("--preset", SMALL_PRESET)


def test_the_same_command_reuses_a_complete_dataset(invoke, store, tmp_path):
    first = invoke("demos", "--output", "out", *SMALL)
    assert first.exit_code == 0, first.output
    root = next((tmp_path / "out" / "demos").iterdir())
    assert f"dataset  {root}" in first.stdout
    dataset = LeRobotDataset(root)
    assert (dataset.num_episodes, dataset.fps, dataset.version) == (2, 20, "v2.1")

    written = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert invoke("demos", "--output", "out", *SMALL).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == written

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    for run in runs:
        assert run.data.metrics["demos/episodes"] == 2
        assert run.data.tags["lineage.dataset.sha256"] == dataset.digest
        assert run.inputs.dataset_inputs[0].dataset.digest == dataset.digest[:32]


def test_other_settings_lead_to_another_dataset(invoke, tmp_path):
    for noise in ("0.01", "0.02"):
        assert invoke("demos", "--output", "out", *SMALL, "--overrides", f"demos.noise={noise}").exit_code == 0
    assert len(list((tmp_path / "out" / "demos").iterdir())) == 2


def test_impossible_settings_are_refused(invoke, tmp_path):
    only_error(invoke("demos", "--task", "stack9"), "there is no task 'stack9'")
    assert list(tmp_path.glob("result*")) == []


def test_terminated_demos_leave_a_killed_run_and_no_dataset(start, store, tmp_path):
    process = start("demos", "--output", "out", "--episodes", "50", "--overrides", "demos.workers=1")
    kill_when(process, "5/50", signal.SIGTERM)
    assert process.returncode == 143
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    assert run.info.status == "KILLED"
    assert list((tmp_path / "out" / "demos").glob("stack2*")) == []
