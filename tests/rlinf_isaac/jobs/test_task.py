"""What a dataset says of its robot, as the file of a task."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from rlinf_isaac.data.lerobot.format import Feature, image_feature
from rlinf_isaac.data.lerobot.meta import DatasetMeta
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.jobs.task import assign_cameras, draft
from rlinf_isaac.tasks.read import from_dict

BASE, LEFT, RIGHT = "base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
VECTOR = Feature("float32", (3,), None)


def meta(features=None, tasks=("Go.",), robot="arm") -> DatasetMeta:
    vectors = {"observation.state": VECTOR, "action": VECTOR}
    return DatasetMeta("v2.1", 30, robot, {**vectors, **(features or {})}, (), dict(enumerate(tasks)), None)


def read(text: str, path: Path = Path("/nowhere")):
    return from_dict(yaml.safe_load(text), "the draft", path)


@pytest.mark.parametrize(
    ("names", "slots"),
    [
        (["cam_high", "cam_left_wrist", "cam_right_wrist"], {BASE: 0, LEFT: 1, RIGHT: 2}),
        (["cam_right_wrist", "cam_low", "cam_high", "cam_left_wrist"], {BASE: 2, LEFT: 3, RIGHT: 0}),
        (["image", "wrist_image"], {BASE: 0, LEFT: 1}),
        (["wrist", "front"], {BASE: 1, LEFT: 0}),
        (["top", "left", "right"], {BASE: 0, LEFT: 1, RIGHT: 2}),
        (["exterior_image_1_left", "wrist_image_left"], {BASE: 0, LEFT: 1}),
        (["agentview_rgb", "eye_in_hand_rgb"], {BASE: 0, LEFT: 1}),
        (["right_wrist", "side"], {BASE: 1, RIGHT: 0}),
        (["laptop", "phone"], {BASE: 0}),
        (["wristLeft", "handRight", "head"], {BASE: 2, LEFT: 0, RIGHT: 1}),
        (["wrist"], {LEFT: 0}),
        ([], {}),
    ],
)
def test_cameras_go_to_the_slots_that_their_names_say(names, slots):
    names = [f"observation.images.{name}" for name in names]
    assert assign_cameras(names) == {slot: names[place] for slot, place in slots.items()}


@given(st.lists(TEXTS, max_size=6, unique=True))
def test_no_camera_is_in_two_slots(names):
    slots = assign_cameras(names)
    assert len(set(slots.values())) == len(slots)
    assert set(slots.values()) <= set(names)
    assert not names or slots


@example([], ["\n"], "data", "a\n")  # which YAML writes on several lines, left to itself
@example([], ["Go.\x85Stop."], "data\x85", "\u2028arm")  # which end a line of YAML, in a comment too
@given(st.lists(TEXTS, max_size=4, unique=True), st.lists(TEXTS, max_size=7), TEXTS, TEXTS)
def test_every_draft_is_read_back(cameras, prompts, root, robot):
    """Whatever its texts hold: quotes, line breaks, what YAML takes for a number."""
    features = {f"c.{name}": image_feature(8, 8) for name in cameras}
    task = read(draft(meta(features, prompts, robot), Path("/") / root.replace("/", "_").replace("\0", "_")))
    assert {camera.dataset for camera in task.cameras.values()} <= set(features)
    assert (task.state.dims, task.action.dims, task.control_hz, task.env) == (3, 3, 30, None)
    assert task.prompts is None or task.prompts == tuple(prompts)
    assert task.robot in (robot, None)


def test_names_are_taken_where_they_mean_something():
    def states(shape, names, **options):
        return read(draft(meta({"observation.state": Feature("float32", shape, names, **options)}), Path("/d"))).state

    assert states((2,), ("x", "y")).names == ("x", "y")
    assert states((2,), ("x", "y"), grouped=True).names is None
    assert states((8,), ("state",)).names is None
    assert states((2,), ("0", "1")).names is None


def test_prompts():
    assert read(draft(meta(tasks=["Go."]), Path("/d"))).prompts == ("Go.",)
    assert read(draft(meta(tasks=["Go.", "Stop."]), Path("/d"))).prompts == ("Go.", "Stop.")
    assert read(draft(meta(tasks=[f"Go {number}." for number in range(6)]), Path("/d"))).prompts is None
    for prompt in ("dataset", "none", " ", ""):
        assert read(draft(meta(tasks=[prompt]), Path("/d"))).prompts is None


def test_other_names_of_state_and_action():
    features = {"observation.state": image_feature(8, 8), "robot_state": VECTOR, "action": Feature("int64", (1,), None)}
    features |= {"actions": Feature("float64", (5,), None)}
    task = read(draft(meta(features), Path("/d")))
    assert (task.state.dataset, task.action.dataset, task.action.dims) == ("robot_state", "actions", 5)
    with pytest.raises(InvalidJob, match="no-feature"):
        draft(meta({"action": image_feature(8, 8)}), Path("/d"))
