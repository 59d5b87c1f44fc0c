"""Names of the entries of an observation, for the robots of others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_project.serving.observation import ObservationSpec
from mlflow_project.serving.spellings import spellings
from rlinf_isaac.ground.errors import ObservationError
from rlinf_isaac.tasks.registry import find_task
from rlinf_isaac.tasks.task import SLOTS

STATE = "observation.state"
ALOHA = {
    "base_0_rgb": "observation.images.cam_high",
    "left_wrist_0_rgb": "observation.images.cam_left_wrist",
    "right_wrist_0_rgb": "observation.images.cam_right_wrist",
}
FRANKA = {"base_0_rgb": "observation.images.image", "left_wrist_0_rgb": "observation.images.wrist_image"}
FEATURES = st.sampled_from(["image", "wrist_image", "cam", "a.cam", "b.cam", "front", *SLOTS, "left.rgb", "right.rgb"])


def test_stack_cube_keeps_its_names():
    task = find_task("stack2")
    names = spellings({slot: each.dataset for slot, each in task.cameras.items()}, task.state.dataset)
    assert names["base_0_rgb"][:3] == ("observation/image", "images/front", "observation.images.front")
    wrist = ("observation/wrist_image", "images/wrist", "observation.images.wrist")
    assert names["left_wrist_0_rgb"][:3] == wrist
    assert names["state"] == ("observation/state", "state", "observation.state")


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("prefix", ["images/", "observation.images.", "", "observation/"])
@pytest.mark.parametrize("slots", [False, True])
def test_three_cameras_in_every_form(prefix, slots, nested):
    names = dict(zip(SLOTS, SLOTS if slots else ("cam_high", "cam_left_wrist", "cam_right_wrist"), strict=True))
    spec = ObservationSpec(32, tuple(map(str, range(14))), ("Fold.",), ALOHA, STATE)
    # OpenPI's ALOHA clients send the channels first.
    images = {name: np.full((3, 32, 32), shade, np.uint8) for shade, name in enumerate(names.values(), 1)}
    sent = {prefix + name: image for name, image in images.items()}
    if nested and prefix.endswith("/"):
        sent = {prefix[:-1]: images}
    sent["state"] = np.arange(14.0)
    if (prefix, slots) in {("images/", False), ("observation/", False), ("observation.images.", False)} or (
        slots and prefix in ("", "images/")
    ):
        request = spec.parse(sent, (0, 0, 0))
        assert [int(request.images[slot].max()) for slot in SLOTS] == [1, 2, 3]
        assert request.prompt == "Fold."
    else:
        with pytest.raises(ObservationError, match="observation-missing"):
            spec.parse(sent, (0, 0, 0))


def test_what_means_two_cameras_means_none():
    assert "observation/wrist_image" not in sum(spellings(ALOHA, "state").values(), ())
    same = {"base_0_rgb": "top.rgb", "left_wrist_0_rgb": "left.rgb", "right_wrist_0_rgb": "right.rgb"}
    assert "images/rgb" not in sum(spellings(same, "state").values(), ())
    spec = ObservationSpec(32, ("x",), ("Go.",), same, STATE)
    with pytest.raises(ObservationError) as refused:
        spec.parse({"images": {"rgb": np.zeros((32, 32, 3), np.uint8)}, "state": [0.0]}, (0, 0, 0))
    assert [problem.code for problem in refused.value.problems] == ["observation-missing"] * 3


def test_a_feature_goes_before_a_name_that_any_robot_has():
    swapped = {"base_0_rgb": "observation.images.wrist_image", "left_wrist_0_rgb": "observation.images.image"}
    names = spellings(swapped, "state")
    assert "observation/wrist_image" in names["base_0_rgb"]
    assert "observation/image" in names["left_wrist_0_rgb"]
    assert "observation/image" not in names["base_0_rgb"]


def test_messages_propose_one_style():
    assert [names[0] for names in spellings(FRANKA, "observation.state").values()][:3] == [
        "observation/image",
        "observation/wrist_image",
        "observation/state",
    ]
    assert [names[0] for names in spellings(ALOHA, "observation.state").values()][:4] == [
        "images/cam_high",
        "images/cam_left_wrist",
        "images/cam_right_wrist",
        "state",
    ]


@given(st.dictionaries(st.sampled_from(SLOTS), FEATURES))
def test_no_name_is_ambiguous_and_every_camera_has_one(cameras):
    names = spellings(cameras, "observation.state")
    every = [name for slot in cameras for name in names[slot]]
    assert len(every) == len(set(every))
    assert all(names[slot] for slot in cameras)


def test_a_policy_without_recorded_prompts_asks_for_one():
    spec = ObservationSpec(32, ("x",), (), {}, STATE, any_prompt=True)
    assert spec.parse({"state": [0.0], "prompt": "Go."}, (0, 0, 0)).prompt == "Go."
    with pytest.raises(ObservationError, match="observation-prompt"):
        spec.parse({"state": [0.0]}, (0, 0, 0))
