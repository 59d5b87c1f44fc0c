"""robomimic's own loader gives the same observations and actions, in the same order, as the dataset made of its file.

It needs an interpreter with robomimic (CONTRIBUTING.md), and is skipped elsewhere.
"""

from __future__ import annotations

import numpy as np
import pytest
from corpus.hdf5_demos import isaaclab, robomimic

from rlinf_isaac.data.hdf5.choice import Wanted
from rlinf_isaac.data.hdf5.plan import Request, make_plan
from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings
from rlinf_isaac.data.lerobot.reader import LeRobotDataset

pytest.importorskip("h5py")
loader = pytest.importorskip("robomimic.utils.dataset")

LAYOUTS = {
    "robomimic": (robomimic, ["robot0_eef_pos", "robot0_gripper_qpos"], ["agentview_image"], "train"),
    "isaaclab": (isaaclab, ["eef_pos", "eef_quat", "gripper_pos"], ["table_cam", "wrist_cam"], None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_loader_reads_the_same(layout, tmp_path):
    from rlinf_isaac.data.hdf5.convert import import_demonstrations

    write, state, cameras, mask = LAYOUTS[layout]
    path = write(tmp_path / "demos.hdf5")
    wanted = Wanted({key: f"observation.images.{key}" for key in cameras}, tuple(state), "actions")
    plan = make_plan(FoldedFindings(), Request((path,), wanted, prompt="Stack.", mask=mask))
    assert plan is not None
    list(import_demonstrations(plan, tmp_path / "out"))
    ours = LeRobotDataset(tmp_path / "out")
    theirs = loader.SequenceDataset(
        hdf5_path=str(path),
        obs_keys=[*state, *cameras],
        dataset_keys=["actions"],
        frame_stack=1,
        seq_length=1,
        hdf5_cache_mode=None,
        hdf5_use_swmr=False,
        filter_by_attribute=mask,
        load_next_obs=False,
    )
    assert ours.num_frames == len(theirs)
    for frame in range(len(theirs)):
        item = theirs[frame]
        joined = np.concatenate([item["obs"][key][0] for key in state]).astype(np.float32)
        np.testing.assert_array_equal(ours.column("observation.state")[frame], joined)
        np.testing.assert_array_equal(ours.column("action")[frame], item["actions"][0].astype(np.float32))
        for key in cameras:
            np.testing.assert_array_equal(ours.image(f"observation.images.{key}", frame), item["obs"][key][0])
