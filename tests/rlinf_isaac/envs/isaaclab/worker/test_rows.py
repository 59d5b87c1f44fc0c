"""What needs no IsaacLab of the rows of its tasks; the rest is in test_task_env.py."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rlinf_isaac.envs.isaaclab.options import LabOptions
from rlinf_isaac.envs.isaaclab.worker.rows import ASSET_ROOT, RowOf, prepare_assets
from rlinf_isaac.tasks.paths import leaves


def test_a_row_of_dicts_of_arrays_is_read_like_the_dicts_of_its_own_arrays():
    batch = {"policy": {"joints": np.arange(6).reshape(3, 2)}, "reached": np.array([False, True, False])}
    row = RowOf(batch, 1)
    assert (list(row), len(row)) == (["policy", "reached"], 2)
    assert row["policy"]["joints"].tolist() == [2, 3]
    assert {path: np.asarray(value).tolist() for path, value in leaves(row).items()} == {
        "policy/joints": [2, 3],
        "reached": True,
    }
    with pytest.raises(KeyError):
        row["images"]


@pytest.mark.parametrize(
    ("given", "assets", "source"),
    [("/assets", "standin", "given"), ("/assets", "own", "given"), (None, "own", "own"), ("", "own", "own")],
)
def test_files_that_somebody_names_go_before_the_stand_ins(monkeypatch, tmp_path, given, assets, source):
    monkeypatch.setattr(os, "environ", {} if given is None else {ASSET_ROOT: given})
    assert prepare_assets(LabOptions(assets=assets), tmp_path) == source
    assert os.environ.get(ASSET_ROOT) == given
    assert os.environ["MUJOCO_GL"] == "disable"
