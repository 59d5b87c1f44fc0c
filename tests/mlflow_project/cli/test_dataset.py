from __future__ import annotations

import json
import signal
import sys

import numpy as np
import pytest
from corpus.hdf5_demos import PROMPT, isaaclab, robomimic
from corpus.hdf5_faults import CASES
from faults.verbs import Job, verbs
from mlflow import MlflowClient
from support import only_error

from rlinf_isaac.data.lerobot.reader import LeRobotDataset

h5py = pytest.importorskip("h5py")

IMPORT = ("dataset", "import")
TASK = """
name: lift
prompt: Lift the cube.
control_hz: 20
cameras:
  base_0_rgb: {dataset: observation.images.agentview_image}
  left_wrist_0_rgb: {dataset: observation.images.robot0_eye_in_hand_image}
state: {dataset: observation.state, dims: 5}
action: {dataset: action, dims: 7}
"""


def contents(directory):
    return {path: path.is_file() and path.read_bytes() for path in directory.rglob("*")}


def test_an_import_is_a_tracked_run_and_is_kept_by_the_same_command(invoke, store, tmp_path):
    isaaclab(tmp_path / "gen.hdf5", failed=[1])
    words = (*IMPORT, "gen.hdf5", "--output", "out", "--prompt", PROMPT)
    first = invoke(*words)
    assert first.exit_code == 0, first.output
    root = tmp_path / "out" / "datasets" / "gen"
    assert f"dataset      {root}" in first.stdout
    assert "rate         20 Hz, from dt and decimation of env_args" in first.stdout
    assert "state        actions (7), eef_pos (3), eef_quat (4), gripper_pos (2)" in first.stdout
    assert "left out     datagen_info: a group" in first.stdout
    assert "episodes     2 (2 successful, 0 failed, 0 unmarked), 9 frames; 1 failed ones left out" in first.stdout
    dataset = LeRobotDataset(root)
    assert (dataset.num_episodes, dataset.fps, dataset.version) == (2, 20, "v2.1")

    written = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    again = invoke(*words)
    assert again.exit_code == 0, again.output
    assert "kept" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == written

    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    for run in runs:
        assert run.data.metrics["import/episodes"] == 2
        assert run.data.metrics["import/failed_left_out"] == 1
        assert run.data.params["import/fps"] == "20"
        assert run.data.tags["lineage.dataset.sha256"] == dataset.digest


def test_doctor_passes_what_was_imported(invoke, tmp_path):
    """With a task that describes it, and alone as a dataset of stack-cube."""
    robomimic(tmp_path / "lift.hdf5")
    (tmp_path / "task.yaml").write_text(TASK)
    (tmp_path / "mine.yaml").write_text(f"base: tiny\nenv:\n  task: {tmp_path / 'task.yaml'}\n")
    made = invoke(*IMPORT, "lift.hdf5", "--output", "out", "--prompt", "Lift the cube.")
    assert made.exit_code == 0, made.output
    checked = invoke("doctor", "--dataset", "out/datasets/lift", "--preset", "mine.yaml", "--full", "--json")
    assert (checked.exit_code, json.loads(checked.stdout)["problems"]) == (0, [])


def test_several_files_become_one_dataset(invoke, tmp_path):
    isaaclab(tmp_path / "a.hdf5", (2, 3))
    isaaclab(tmp_path / "b.hdf5", (4,), seed=1)
    made = invoke(*IMPORT, "a.hdf5,b.hdf5", "--output", "out", "--name", "both", "--prompt", PROMPT)
    assert made.exit_code == 0, made.output
    dataset = LeRobotDataset(tmp_path / "out" / "datasets" / "both")
    assert dataset.episode_lengths.tolist() == [2, 3, 4]
    assert [each["source"] for each in dataset.provenance["episodes"]] == [0, 0, 1]


def test_the_options_choose(invoke, tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5", (3, 4), failed=[0])
    made = invoke(
        *(*IMPORT, path, "--output", "out", "--prompt", PROMPT, "--failed", "keep", "--fps", "20"),
        *("--cameras", "wrist_cam=observation.images.wrist", "--state", "gripper_pos,eef_pos"),
        *("--action-key", "processed_actions"),
    )
    assert made.exit_code == 0, made.output
    assert "error" not in made.stderr
    dataset = LeRobotDataset(tmp_path / "out" / "datasets" / "gen")
    assert dataset.num_episodes == 2
    state = [f"gripper_pos_{index}" for index in range(2)] + [f"eef_pos_{index}" for index in range(3)]
    assert list(dataset.features["observation.state"].names or ()) == state
    assert {name for name, each in dataset.features.items() if each.is_visual} == {"observation.images.wrist"}
    with h5py.File(path) as file:
        expected = np.concatenate([file[f"data/demo_{number}/processed_actions"][()] for number in range(2)])
    np.testing.assert_array_equal(dataset.column("action"), expected)
    assert [each["success"] for each in dataset.provenance["episodes"]] == [False, True]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_is_refused_with_its_code_and_nothing_is_written(case, invoke, tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5")
    case.break_it(path)
    before = contents(tmp_path)
    refused = invoke(*IMPORT, path, "--output", "out", "--prompt", PROMPT)
    assert refused.exit_code == 2, refused.output
    codes = {line.split()[1] for line in refused.stderr.splitlines() if line.startswith("error ")}
    assert case.code in codes, refused.stderr
    assert contents(tmp_path) == before


def test_everything_that_is_wrong_is_said_at_once(invoke, tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5")
    next(case for case in CASES if case.name == "NaN in an action").break_it(path)
    before = contents(tmp_path)
    refused = invoke(
        *(*IMPORT, path, "nowhere.hdf5", "--output", "out", "--fps", "20.5", "--state", "eef_pos,eef_pos"),
        *("--cameras", "a=b,c=b", "--name", "a/b"),
    )
    assert refused.exit_code == 2
    codes = {line.split()[1] for line in refused.stderr.splitlines() if line.startswith("error ")}
    assert codes >= {"fps-value", "bad-state", "bad-cameras", "bad-name"}
    assert codes >= {"hdf5-missing", "hdf5-no-prompt", "hdf5-no-key"}
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--cameras", "top_cam"), "hdf5-no-key"),
        (("--cameras", "eef_pos"), "hdf5-image"),
        (("--state", "wrist_cam"), "hdf5-kind"),
        (("--state", "datagen_info"), "hdf5-kind"),
        (("--state", "none"), "bad-state"),
        (("--action-key", "nothing"), "hdf5-no-action"),
        (("--mask", "train"), "hdf5-mask"),
        (("--prompt", ""), "empty-prompt"),
        (("--prompt", "x" * 20_000), "bad-prompt"),
        (("--prompt", "\udcff"), "bad-prompt"),
        (("--name", ".."), "bad-name"),
        (("--fps", "-1"), "fps-value"),
    ],
)
def test_options_that_fit_nothing_are_refused(words, code, invoke, tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5")
    before = contents(tmp_path)
    only_error(invoke(*IMPORT, path, "--output", "out", "--prompt", PROMPT, *words), code)
    assert contents(tmp_path) == before


def test_what_is_at_the_output_is_never_replaced(invoke, tmp_path):
    isaaclab(tmp_path / "gen.hdf5")
    words = (*IMPORT, "gen.hdf5", "--output", "out", "--prompt")
    assert invoke(*words, PROMPT).exit_code == 0
    before = contents(tmp_path / "out" / "datasets")
    only_error(invoke(*words, "Another one."), "output-of-another-job")
    isaaclab(tmp_path / "gen.hdf5", seed=5)
    only_error(invoke(*words, PROMPT), "output-of-another-job")
    assert contents(tmp_path / "out" / "datasets") == before
    (tmp_path / "out" / "datasets" / "thesis").mkdir()
    only_error(invoke(*words, PROMPT, "--name", "thesis"), "output-exists")


def test_another_rate_than_the_file_says_is_a_warning(invoke, tmp_path):
    isaaclab(tmp_path / "gen.hdf5")
    made = invoke(*IMPORT, "gen.hdf5", "--output", "out", "--prompt", PROMPT, "--fps", "30")
    assert made.exit_code == 0, made.output
    assert "warning hdf5-rate" in made.stderr
    assert LeRobotDataset(tmp_path / "out" / "datasets" / "gen").fps == 30


def test_without_h5py_it_says_what_to_install(invoke, tmp_path, monkeypatch):
    path = isaaclab(tmp_path / "gen.hdf5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    only_error(invoke(*IMPORT, path, "--output", "out", "--prompt", PROMPT), "no-h5py")


@pytest.mark.slow
def test_killed_in_the_middle_it_leaves_no_dataset_and_the_same_command_makes_it(store, tmp_path):
    """The kills are spread over the whole of the writing."""
    path = isaaclab(tmp_path / "gen.hdf5", (3, 3, 3, 3))
    words = [*IMPORT, str(path), "--output", "out", "--prompt", PROMPT, "--name"]
    datasets = tmp_path / "out" / "datasets"
    with verbs() as start:
        (whole,) = start([Job([*words, "whole"], str(tmp_path), trace=True)])
        assert whole.status == 0
        unseen = 0
        for number, share in enumerate((0.5, 0.7, 0.9)):
            line = int(share * whole.lines)
            name = f"killed-{number}"
            (killed,) = start([Job([*words, name], str(tmp_path), kill_line=line)])
            assert killed.status == -signal.SIGKILL
            unseen += not (datasets / name).exists()
            if (datasets / name).exists():
                LeRobotDataset(datasets / name)
        assert unseen
        (again,) = start([Job([*words, "killed-0"], str(tmp_path))])
        assert again.status == 0
    assert LeRobotDataset(datasets / "killed-0").digest == LeRobotDataset(datasets / "whole").digest
    assert [each.name for each in datasets.glob(".killed-0*")] == []
