"""Assets that somebody brings, in the real IsaacLab."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlinf_isaac.config.task import stack_cube
from rlinf_isaac.envs.isaaclab.env import IsaacLabVectorEnv
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.ground.errors import SimulatorError

pytestmark = pytest.mark.isaaclab

BLUE_BLOCK = "Isaac/Props/Blocks/blue_block.usd"


@pytest.fixture
def given(env_python, tmp_path, monkeypatch) -> Path:
    """The stand-ins, copied and named in ISAACSIM_ASSET_ROOT; the blue cube is yellow."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(cache))
    env = IsaacLabVectorEnv(1, stack_cube("stack3"), image_size=32)
    assert env.identity.assets.startswith("standin-")
    env.close()
    (written,) = (cache / "isaaclab" / "assets").iterdir()
    root = tmp_path / "assets"
    shutil.copytree(written, root)
    block = root / BLUE_BLOCK
    block.write_text(block.read_text().replace("(0.1, 0.27, 0.84)", "(0.9, 0.8, 0.1)"))
    monkeypatch.setenv("ISAACSIM_ASSET_ROOT", str(root))
    return root


def test_given_assets_are_used_and_named_as_such(given) -> None:
    env = IsaacLabVectorEnv(1, stack_cube("stack3"), image_size=64)
    policy = env.reset(seed=0)[0]["policy"]
    env.close()
    assert env.identity.assets.startswith("given-")
    image = policy[contract.TABLE_CAM][0].astype(int)
    yellow = (image[..., 0] > 2 * image[..., 2]) & (image[..., 1] > 2 * image[..., 2])
    assert yellow.sum() > 20


def test_a_missing_one_is_named(given) -> None:
    (given / BLUE_BLOCK).unlink()
    with pytest.raises(SimulatorError, match=rf"ISAACSIM_ASSET_ROOT\) has no {BLUE_BLOCK}"):
        IsaacLabVectorEnv(1, stack_cube("stack3"), image_size=64)
