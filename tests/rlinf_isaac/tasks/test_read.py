from __future__ import annotations

import json
from hashlib import sha256

import pytest

from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.tasks.read import from_dict, read_task
from rlinf_isaac.tasks.task import Action, Camera, Vector

TASK = """
name: cup-on-shelf
robot: my-arm
prompt: Put the cup on the shelf.
control_hz: 15
cameras:
  base_0_rgb: {dataset: observation.images.base, env: pixels/base}
  left_wrist_0_rgb: {dataset: observation.images.wrist, env: pixels/wrist}
state: {dims: 8, env: [agent_pos, "gripper[0:1]"]}
action: {dims: 7, delta: "6,-1", clip: [-1, 1], names: [x, y, z, rx, ry, rz, gripper]}
env:
  kind: gymnasium
  make: cup.py:make
  options: {image_size: 64}
  python: $CUP_PYTHON
  success: info.distance<=0.02
  failure: info.fell
  dwell: 5
  max_steps: 300
expert: cup.py:Expert
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "cup.py").write_text("def make(): ...")
    path = tmp_path / "task.yaml"
    path.write_text(TASK)
    return path


def test_a_file_is_read_as_it_is_written(file):
    task = read_task(file)
    assert (task.name, task.prompts, task.control_hz) == ("cup-on-shelf", ("Put the cup on the shelf.",), 15)
    assert task.cameras["base_0_rgb"] == Camera("observation.images.base", "pixels/base")
    assert task.state == Vector("observation.state", 8, None, ("agent_pos", "gripper[0:1]"))
    names = ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert task.action == Action("action", 7, names, (), "6,-1", (-1.0, 1.0))
    assert task.env is not None
    assert (task.env.success, task.env.failure, task.env.dwell) == ("info.distance<=0.02", "info.fell", 5)
    assert task.env.sources == {"cup.py": sha256(b"def make(): ...").hexdigest()}
    assert task.expert is not None
    assert task.asset_id == "my-arm"


def test_it_comes_back_from_json(file):
    task = read_task(file)
    assert from_dict(json.loads(json.dumps(task.as_dict())), "config.json") == task


def test_what_was_recorded_is_read_without_its_files(file):
    described = read_task(file).as_dict()
    (file.parent / "cup.py").unlink()
    assert from_dict(described, "config.json").as_dict() == described
    with pytest.raises(InvalidJob, match=r"there is no file .*cup\.py"):
        read_task(file)


def test_a_task_without_an_environment_is_one(file):
    file.write_text(
        TASK[: TASK.index("env:\n  kind")].replace(", env: pixels/base", "").replace(", env: pixels/wrist", "")
    )
    task = read_task(file)
    assert task.env is None
    assert task.cameras["base_0_rgb"].env is None


def test_the_prompt_of_the_dataset_is_no_prompt_of_the_task(file):
    file.write_text(TASK.replace("Put the cup on the shelf.", "dataset"))
    assert read_task(file).prompts is None


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("name: cup-on-shelf", "name: cup on shelf", "name is 'cup on shelf'"),
        ("control_hz: 15", "control_hz: 12.5", "control_hz is 12.5, not int"),
        ("control_hz: 15", "control_hz: 0", "control_hz is 0"),
        ("control_hz: 15", "", "control_hz is missing"),
        ("prompt: Put the cup on the shelf.", "", "prompt is missing"),
        ("prompt: Put the cup on the shelf.", "prompt: [1]", "not a text"),
        ("control_hz", "control_rate", "no key 'control_rate'; did you mean control_hz?"),
        ("base_0_rgb", "base_rgb", "no key 'base_rgb'; did you mean base_0_rgb?"),
        (", env: pixels/base", "", "cameras.base_0_rgb.env is missing"),
        ("agent_pos", "angle(agent_pos)", "uses angle, which is none of axis_angle"),
        ("{dims: 8", "{dims: eight", "state.dims is 'eight', not int"),
        ("{dims: 8", "{dims: true", "state.dims is True, not int"),
        ("rz, gripper]", "rz]", "action.names has 6 entries, action.dims is 7"),
        ("clip: [-1, 1]", "clip: [1, -1]", "action.clip"),
        ("clip: [-1, 1]", "clip: 1", "action.clip"),
        ("kind: gymnasium", "kind: gym", "env.kind is 'gym', none of"),
        ("success: info.distance<=0.02", "success: distance", "env.success: 'distance' is no term"),
        ("success: info.distance<=0.02", "success: term:done", "is a termination term of IsaacLab"),
        ("dwell: 5", "dwell: 0", "env.dwell is 0"),
        ("make: cup.py:make", "make: cap.py:make", "there is no file"),
        ("options: {image_size: 64}", "options: 64", "env.options is 64"),
        ("state: {dims: 8", "state: 8\nstrange: {dims: 8", "state is 8, not a section"),
    ],
)
def test_a_mistake_is_named(file, old, new, named):
    assert old in TASK
    file.write_text(TASK.replace(old, new))
    with pytest.raises(InvalidJob) as caught:
        read_task(file)
    assert {problem.code for problem in caught.value.problems} == {"bad-task"}
    assert named in str(caught.value)
    assert str(file) in str(caught.value)


def test_all_mistakes_are_told_at_once(file):
    file.write_text("name: 1\ncontrol_hz: fast\nstate: {}\n")
    with pytest.raises(InvalidJob) as caught:
        read_task(file)
    said = str(caught.value)
    assert all(
        word in said for word in ("name is 1", "control_hz is 'fast'", "prompt is missing", "state.dims is missing")
    )


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: &a [*a]", "{", "\x00"])
def test_what_is_no_mapping_is_refused(file, text):
    file.write_text(text)
    with pytest.raises(InvalidJob):
        read_task(file)


def test_the_functions_of_isaaclabs_terms_are_hashed_and_must_be_there(file):
    terms = "options: {terminations: {success: {func: 'cup.py:full'}, spilt: {func: 'my_lab.terms:spilt'}}}"
    text = TASK.replace("kind: gymnasium", "kind: isaaclab").replace("make: cup.py:make", "make: Isaac-Cup")
    file.write_text(text.replace("options: {image_size: 64}", terms))
    task = read_task(file)
    assert list(task.env.sources) == ["cup.py"]
    file.write_text(file.read_text().replace("cup.py:full", "jug.py:full"))
    with pytest.raises(InvalidJob, match=r"there is no file .*jug\.py"):
        read_task(file)
