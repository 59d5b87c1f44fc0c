"""Meta-World's tasks, as descriptions in the default suite, and as environments where one is installed:

python3.11 -m venv metaworld-venv && metaworld-venv/bin/pip install metaworld==3.1.1 packaging
METAWORLD_PYTHON=metaworld-venv/bin/python python -m pytest -m metaworld
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from rlinf_isaac.envs.host.env import HostEnv
from rlinf_isaac.envs.host.interpreter import check_host
from rlinf_isaac.tasks.paths import leaves
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.registry import find_task, task_names
from rlinf_isaac.tasks.shipped.metaworld import PROMPTS, REQUIRES, TASKS
from rlinf_isaac.tasks.task import Task

PLAYED = ("reach-v3", "button-press-topdown-v3", "drawer-open-v3")
ALL = np.ones(2, bool)


def test_there_are_fifty_and_each_is_found_by_its_name() -> None:
    assert len(TASKS) == 50
    assert set(TASKS) <= set(task_names())
    assert len(set(PROMPTS.values())) == 50
    for name in TASKS:
        task = find_task(name)
        assert (task.name, task.control_hz, task.action.dims, task.state.dims) == (name, 80, 4, 4)
        assert from_dict(task.as_dict(), "a test") == task


def test_they_are_described_without_the_package() -> None:
    """In the interpreters of jobs it is not there, and a description must not cost an import."""
    code = (
        "import sys; from rlinf_isaac.tasks.shipped.metaworld import TASKS; TASKS['metaworld/reach-v3']()\n"
        "assert not {'metaworld', 'gymnasium', 'mujoco', 'numpy'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="session")
def metaworld_task() -> Task:
    """One of them, where Meta-World is installed."""
    task = find_task(f"metaworld/{PLAYED[0]}")
    if "METAWORLD_PYTHON" not in os.environ:
        pytest.skip("METAWORLD_PYTHON names no interpreter")
    assert check_host(task) == []
    return task


@pytest.fixture(scope="module", params=PLAYED)
def env(request, metaworld_task) -> Iterator[HostEnv]:
    env = HostEnv(2, find_task(f"metaworld/{request.param}"), workers=2)
    yield env
    env.close()


@pytest.mark.metaworld
def test_the_prompts_are_those_of_all_its_tasks(metaworld_task) -> None:
    code = "from metaworld.env_dict import ALL_V3_ENVIRONMENTS as envs; print(*envs)"
    names = subprocess.run([os.environ["METAWORLD_PYTHON"], "-I", "-c", code], capture_output=True, text=True).stdout
    assert set(names.split()) == set(PROMPTS)
    assert REQUIRES[0] == "metaworld"


@pytest.mark.metaworld
def test_an_episode_is_a_function_of_its_seed_and_actions(env) -> None:
    """Images, too, and whichever episode went before."""
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 4))

    def episode(slot: int, other_seed: int) -> list[dict[str, np.ndarray]]:
        seeds = [other_seed, other_seed]
        seeds[slot] = 7
        observations = [env.reset(seed=seeds)[0]]
        chunk = np.random.default_rng(other_seed).uniform(-1, 1, (2, 12, 4))
        chunk[slot] = actions
        observations.append(env.chunk_step(chunk, ALL).observation)
        return [{path: value[slot] for path, value in leaves(each).items()} for each in observations]

    first = episode(0, 100)
    for again in (episode(0, 101), episode(1, 102)):
        for one, other in zip(first, again, strict=True):
            assert one.keys() == other.keys() == {"hand", "gripper", "images/scene", "images/wrist"}
            for key in one:
                np.testing.assert_array_equal(one[key], other[key], err_msg=key)
    starts = env.reset(seed=[8, 9])[0]["images"]["scene"]
    assert (starts[0] != starts[1]).any(), "every episode starts alike"


@pytest.mark.metaworld
def test_cameras_move_or_see_the_hand_move(env) -> None:
    before = env.policy_input(env.reset(seed=[0, 1])[0])
    down = np.tile(np.float32([0, 0, -1, 1]), (2, 12, 1))
    after = env.policy_input(env.chunk_step(down, ALL).observation)
    assert (after.states[:, 2] < before.states[:, 2] - 0.02).all(), "the hand goes down"
    assert (after.states[:, 3] < before.states[:, 3] - 0.1).all(), "the gripper closes"
    for slot, images in before.images.items():
        assert images.shape == (2, 64, 64, 3)
        changed = (np.abs(after.images[slot].astype(int) - images) > 20).any(axis=-1).mean(axis=(1, 2))
        assert (changed > 0.01).all(), f"{slot} shows nothing of it"
    # The arm comes from above: the image is not upside down.
    red = before.images["base_0_rgb"].astype(int)
    is_arm = (red[..., 0] > 90) & (red[..., 0] > 2 * red[..., 1])
    assert is_arm[:, :32].sum() > is_arm[:, 48:].sum()


@pytest.mark.metaworld
def test_its_expert_solves_it(env) -> None:
    observation, _ = env.reset(seed=[1000, 1001])
    expert, active = env.expert(), ALL
    assert expert.version == "rlinf_isaac.tasks.shipped.metaworld:Expert-3.1.1"
    while active.any():
        actions = expert.act(observation, active)
        assert np.abs(actions[active]).max() <= 1
        step = env.chunk_step(actions[:, None], active, images=False)
        active = active & ~(step.terminated | step.time_out)
    assert step.success.all(), env.elapsed
    assert step.extras["success"].tolist() == [1.0, 1.0]
