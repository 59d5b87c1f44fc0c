from __future__ import annotations

import pytest
from robots import ALOHA, FRANKA, ROBOTS, Robot, begin, succeed
from support import only_error

from rlinf_isaac.config.task import stack_cube
from rlinf_isaac.tasks.read import read_task


@pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.name)
def test_a_file_begun_from_a_dataset(invoke, tmp_path, robot: Robot):
    task = read_task(begin(invoke, robot.write(tmp_path / robot.name)))
    assert {slot: camera.dataset for slot, camera in task.cameras.items()} == robot.cameras
    assert (task.state.dims, task.action.dims, task.control_hz) == (robot.state, robot.action, robot.fps)
    assert task.state.names == (ALOHA.names if robot is ALOHA else None)
    assert task.prompts == robot.prompts
    assert task.asset_id == robot.robot_type


def test_a_file_begun_from_this_projects_own_demonstrations(invoke, small_dataset, tmp_path):
    """It describes the task that they are of, but for the environment."""
    dataset = tmp_path / "data"
    dataset.symlink_to(small_dataset)
    task, own = read_task(begin(invoke, dataset)), stack_cube("stack2", "proprio+cubes")
    assert {slot: camera.dataset for slot, camera in task.cameras.items()} == {
        slot: camera.dataset for slot, camera in own.cameras.items()
    }
    assert (task.state.names, task.action.names) == (own.state.names, own.action.names)
    assert (task.prompts, task.control_hz, task.robot) == (own.prompts, own.control_hz, own.robot)


def test_nothing_is_overwritten(invoke, tmp_path):
    dataset = FRANKA.write(tmp_path / "data")
    file = begin(invoke, dataset)
    before = file.read_bytes()
    only_error(invoke("task", "init", "--dataset", dataset, "--output", file), "task-exists")
    assert file.read_bytes() == before
    only_error(invoke("task", "init", "--dataset", dataset, "--output", tmp_path / "no" / "t.yaml"), "no-directory")
    only_error(invoke("task", "init"), "no-dataset")
    nowhere = invoke("task", "init", "--dataset", tmp_path / "nowhere", "--output", tmp_path / "x.yaml")
    only_error(nowhere, "dataset-not-found")
    assert not (tmp_path / "x.yaml").exists()


def test_show_and_list(invoke, tmp_path):
    file = begin(invoke, FRANKA.write(tmp_path / "data"))
    shown = succeed(invoke("task", "show", file)).stdout
    assert read_task(file).digest in shown
    assert str(file) in shown
    assert "observation.images.wrist_image" in shown
    listed = succeed(invoke("task", "list")).stdout
    assert listed.count("this project") >= 2
    only_error(invoke("task", "show", "stack9"), "unknown-task")
    only_error(invoke("task", "show"), "no-task")
