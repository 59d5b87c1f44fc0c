"""What comes out is what went in: every number, every pixel, in the order of the demonstrations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from corpus.hdf5_demos import ISAACLAB_ARGS, PROMPT, ROBOMIMIC_ARGS, isaaclab, robomimic

from rlinf_isaac.data.hdf5.choice import Wanted
from rlinf_isaac.data.hdf5.plan import Plan, Request, make_plan
from rlinf_isaac.data.hdf5.recipe import MOST_BYTES
from rlinf_isaac.data.lerobot.files import MAX_JSON_BYTES
from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.validate.dataset import validate_dataset
from rlinf_isaac.ground.digest import file_digest
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.ground.events import Progress

h5py = pytest.importorskip("h5py")


def plan_of(*files: Path, cameras=None, state=None, action="actions", **asked) -> Plan:
    found = FoldedFindings()
    plan = make_plan(found, Request(files, Wanted(cameras, state, action), **{"prompt": PROMPT, **asked}))
    assert plan is not None, [str(problem) for problem in found.problems()]
    return plan


def run(plan: Plan, root: Path) -> tuple[LeRobotDataset, list[Progress]]:
    from rlinf_isaac.data.hdf5.convert import import_demonstrations

    events = list(import_demonstrations(plan, root))
    assert all(isinstance(event, Progress) for event in events)
    return LeRobotDataset(root), events


def stored(path: Path, demos: list[str], key: str) -> np.ndarray:
    with h5py.File(path) as file:
        return np.concatenate([file[f"data/{demo}/{key}"][()] for demo in demos])


def images(dataset: LeRobotDataset, feature: str) -> np.ndarray:
    return np.stack([dataset.image(feature, frame) for frame in range(dataset.num_frames)])


def test_of_isaaclab_every_number_and_every_pixel(tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5", failed=[1])
    dataset, events = run(plan_of(path), tmp_path / "out")
    demos = ["demo_0", "demo_2"]
    state = [stored(path, demos, f"obs/{key}") for key in ("actions", "eef_pos", "eef_quat", "gripper_pos")]
    np.testing.assert_array_equal(dataset.column("observation.state"), np.concatenate(state, axis=1))
    np.testing.assert_array_equal(dataset.column("action"), stored(path, demos, "actions"))
    for camera in ("table_cam", "wrist_cam"):
        expected = stored(path, demos, f"obs/{camera}")
        np.testing.assert_array_equal(images(dataset, f"observation.images.{camera}"), expected)
    assert dataset.episode_lengths.tolist() == [5, 4]
    assert dataset.tasks == {0: PROMPT}
    assert validate_dataset(tmp_path / "out", full=True) == []
    assert (events[-1].label, events[-1].done, events[-1].total) == ("import", 9, 9)
    assert [event.unit for event in events if event.label == "hash"] == ["B"]


def test_of_robomimic_every_number_and_every_pixel(tmp_path):
    """Its numbers have 64 bits; LeRobot's have 32, to which they are rounded."""
    path = robomimic(tmp_path / "lift.hdf5")
    dataset, _ = run(plan_of(path), tmp_path / "out")
    demos = ["demo_0", "demo_1", "demo_2"]
    state = [stored(path, demos, f"obs/{key}") for key in ("robot0_eef_pos", "robot0_gripper_qpos")]
    np.testing.assert_array_equal(dataset.column("observation.state"), np.concatenate(state, axis=1).astype(np.float32))
    np.testing.assert_array_equal(dataset.column("action"), stored(path, demos, "actions").astype(np.float32))
    for camera in ("agentview_image", "robot0_eye_in_hand_image"):
        expected = stored(path, demos, f"obs/{camera}")
        np.testing.assert_array_equal(images(dataset, f"observation.images.{camera}"), expected)
    info = json.loads((tmp_path / "out" / "meta" / "info.json").read_text())
    assert (info["robot_type"], info["fps"]) == ("Panda", 20)
    assert validate_dataset(tmp_path / "out", full=True) == []


def test_the_record_says_where_each_episode_comes_from(tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5", failed=[0])
    dataset, _ = run(plan_of(path), tmp_path / "out")
    record = dataset.provenance
    assert record["sources"] == [{"file": "gen.hdf5", "sha256": file_digest(path), "env_args": ISAACLAB_ARGS}]
    assert record["episodes"] == [
        {"episode": 0, "source": 0, "demo": "demo_1", "frames": 7, "success": True, "seed": None},
        {"episode": 1, "source": 0, "demo": "demo_2", "frames": 4, "success": True, "seed": None},
        {"episode": None, "source": 0, "demo": "demo_0", "frames": 5, "success": False, "seed": None},
    ]
    assert record["fps"] == {"hz": 20, "from": "dt and decimation of env_args"}
    assert str(tmp_path) not in json.dumps(record)


def test_what_a_file_does_not_say_of_success_stays_unknown(tmp_path):
    dataset, _ = run(plan_of(robomimic(tmp_path / "lift.hdf5")), tmp_path / "out")
    assert [each["success"] for each in dataset.provenance["episodes"]] == [None] * 3
    assert dataset.provenance["sources"][0]["env_args"] == ROBOMIMIC_ARGS


def test_failed_ones_are_kept_on_request(tmp_path):
    dataset, _ = run(plan_of(isaaclab(tmp_path / "gen.hdf5", failed=[0]), keep_failed=True), tmp_path / "out")
    assert [each["success"] for each in dataset.provenance["episodes"]] == [False, True, True]


def test_demonstrations_are_in_the_order_of_their_numbers(tmp_path):
    """HDF5 has them in alphabetical order: demo_10 before demo_2."""
    lengths = list(range(1, 13))
    dataset, _ = run(plan_of(isaaclab(tmp_path / "gen.hdf5", lengths)), tmp_path / "out")
    assert dataset.episode_lengths.tolist() == lengths


def test_a_mask_chooses(tmp_path):
    path = robomimic(tmp_path / "lift.hdf5")
    train, _ = run(plan_of(path, mask="train"), tmp_path / "train")
    valid, _ = run(plan_of(path, mask="valid"), tmp_path / "valid")
    assert [each["demo"] for each in train.provenance["episodes"]] == ["demo_0", "demo_1"]
    assert [each["demo"] for each in valid.provenance["episodes"]] == ["demo_2"]


def test_channels_may_come_first(tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5", (3,))
    with h5py.File(path, "r+") as file:
        pixels = file["data/demo_0/obs/table_cam"][()][:, :9]
        del file["data/demo_0/obs/table_cam"]
        file["data/demo_0/obs/table_cam"] = pixels.transpose(0, 3, 1, 2)
    dataset, _ = run(plan_of(path), tmp_path / "out")
    np.testing.assert_array_equal(images(dataset, "observation.images.table_cam"), pixels)


def test_numbers_of_one_dim_may_have_one_axis(tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5", (3,))
    with h5py.File(path, "r+") as file:
        file["data/demo_0/obs/width"] = np.array([0.5, 0.25, 0.125], np.float16)
    dataset, _ = run(plan_of(path, state=("width", "eef_pos")), tmp_path / "out")
    assert dataset.features["observation.state"].names == ("width_0", "eef_pos_0", "eef_pos_1", "eef_pos_2")
    assert dataset.column("observation.state")[:, 0].tolist() == [0.5, 0.25, 0.125]


def test_keys_of_groups_can_be_named(tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5", (3,))
    with h5py.File(path, "r+") as file:
        file["data/demo_0/obs/policy/joint_pos"] = np.ones((3, 2), np.float32)
    dataset, _ = run(plan_of(path, state=("policy/joint_pos",)), tmp_path / "out")
    assert dataset.features["observation.state"].names == ("policy_joint_pos_0", "policy_joint_pos_1")


def test_the_instruction_of_a_file_is_taken_where_none_is_given(tmp_path):
    """robosuite's ``ep_meta`` goes before ``lang`` of env_args."""
    path = isaaclab(tmp_path / "gen.hdf5", (3, 4))
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps(ISAACLAB_ARGS | {"lang": "Stack them."})
        file["data/demo_1"].attrs["ep_meta"] = json.dumps({"lang": "Open the drawer."})
    dataset, _ = run(plan_of(path, prompt=None), tmp_path / "out")
    assert list(dataset.tasks.values()) == ["Stack them.", "Open the drawer."]


@pytest.mark.parametrize(
    ("env_args", "attributes", "hz", "origin"),
    [
        ({"sim_args": {"dt": 1 / 60, "decimation": 2}}, {}, 30, "dt and decimation of env_args"),
        ({"sim_args": {"dt": 0.016667, "decimation": 1}}, {}, 60, "dt and decimation of env_args"),
        ({"env_kwargs": {"control_freq": 10}}, {}, 10, "control_freq of env_args"),
        ({}, {"fps": 50.0}, 50, "fps of /data"),
        ({"sim_args": {"dt": 0.01, "decimation": 5}}, {"fps": 20.0}, 20, "dt and decimation of env_args"),
    ],
)
def test_the_rate_is_the_one_that_the_file_says(env_args, attributes, hz, origin, tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5", (3,))
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps(env_args)
        file["data"].attrs.update(attributes)
    plan = plan_of(path)
    assert (plan.fps, plan.fps_from) == (hz, origin)


def test_links_within_the_file_are_followed(tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5", (3,))
    with h5py.File(path, "r+") as file:
        file.move("data/demo_0/obs/eef_pos", "poses")
        file["data/demo_0/obs/eef_pos"] = h5py.SoftLink("/poses")
    dataset, _ = run(plan_of(path, state=("eef_pos",)), tmp_path / "out")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(dataset.column("observation.state"), file["poses"][()])


def test_long_episodes_are_encoded_in_parts(tmp_path, monkeypatch):
    from rlinf_isaac.data.hdf5 import convert

    path = isaaclab(tmp_path / "gen.hdf5", (9,))
    whole, _ = run(plan_of(path), tmp_path / "whole")
    monkeypatch.setattr(convert, "MOST_BYTES_AT_ONCE", 2 * 12 * 12 * 3)
    parts, _ = run(plan_of(path), tmp_path / "parts")
    assert parts.digest == whole.digest


def test_a_file_that_changes_meanwhile_is_refused(tmp_path):
    from rlinf_isaac.data.hdf5.convert import import_demonstrations

    path = isaaclab(tmp_path / "gen.hdf5", (3, 4))
    events = import_demonstrations(plan_of(path), tmp_path / "out")
    assert next(event for event in events if event.label == "import").done == 3
    with open(path, "ab") as file:
        file.write(b"more")
    with pytest.raises(DatasetError, match="hdf5-changed"):
        list(events)
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_images_leave_nothing(tmp_path):
    """Images are not unpacked before the dataset is written."""
    path = isaaclab(tmp_path / "gen.hdf5", (3, 40))
    with h5py.File(path) as file:
        chunk = file["data/demo_1/obs/wrist_cam"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    middle = chunk.byte_offset + chunk.size // 2
    data[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(data)
    plan = plan_of(path)
    with pytest.raises(DatasetError, match="hdf5-damaged"):
        run(plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_the_record_is_no_longer_than_readers_take():
    assert MOST_BYTES == MAX_JSON_BYTES


def test_a_record_that_would_be_too_long_is_refused(tmp_path, monkeypatch):
    from rlinf_isaac.data.hdf5 import recipe

    plan = plan_of(isaaclab(tmp_path / "gen.hdf5"))
    assert list(recipe.check_record(plan)) == []
    monkeypatch.setattr(recipe, "MOST_BYTES", 1000)
    assert [problem.code for problem in recipe.check_record(plan)] == ["hdf5-large"]
