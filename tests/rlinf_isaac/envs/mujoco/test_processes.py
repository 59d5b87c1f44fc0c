"""The environment in worker processes, beside the same one in this process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from rlinf_isaac.config.task import stack_cube
from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv
from rlinf_isaac.envs.mujoco.processes import StackCubeProcesses
from rlinf_isaac.envs.mujoco.protocol import BLOCK
from rlinf_isaac.envs.vector import ChunkStep, Observation
from rlinf_isaac.ground.errors import SimulatorDied, SimulatorError

ROWS = 3
ALL = np.ones(ROWS, bool)
SETTINGS = {"image_size": 16, "max_episode_steps": 40}
TASK = stack_cube("stack2", "proprio+cubes")


@pytest.fixture(scope="module")
def shared() -> Iterator[StackCubeProcesses]:
    env = StackCubeProcesses(ROWS, TASK, workers=2, **SETTINGS)
    yield env
    env.close()


@pytest.fixture(scope="module")
def alone() -> Iterator[StackCubeVectorEnv]:
    env = StackCubeVectorEnv(ROWS, TASK, **SETTINGS)
    yield env
    env.close()


def random_actions(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (ROWS, steps, 7)).astype(np.float32)


def assert_same(one: Observation, other: Observation) -> None:
    assert {group: list(arrays) for group, arrays in one.items()} == {group: list(a) for group, a in other.items()}
    for group, arrays in one.items():
        for key, array in arrays.items():
            assert array.dtype == other[group][key].dtype
            np.testing.assert_array_equal(array, other[group][key], err_msg=key)


def assert_same_step(one: ChunkStep, other: ChunkStep) -> None:
    assert_same(one.observation, other.observation)
    for name in ("rewards", "steps", "success", "time_out"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("failures", "subtasks", "extras"):
        mine, others = getattr(one, name), getattr(other, name)
        assert mine.keys() == others.keys()
        for key, values in mine.items():
            np.testing.assert_array_equal(values, others[key], err_msg=key)


def test_they_are_the_same_environment(shared, alone) -> None:
    assert shared.identity == alone.identity
    assert shared.crew.owner.tolist() == [0, 0, 1]
    assert shared.observation_space == alone.observation_space
    assert shared.action_space == alone.action_space


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("horizon", [1, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_chunks_are_the_same(shared, alone, horizon, images) -> None:
    steps = []
    for env in (shared, alone):
        observation, info = env.reset(seed=5)
        steps.append((observation, info, env.chunk_step(random_actions(horizon), ALL, images=images)))
    (mine, my_info, step), (other, info, expected) = steps
    assert_same(mine, other)
    assert {name: flags.tolist() for name, flags in my_info.items()} == {k: v.tolist() for k, v in info.items()}
    assert_same_step(step, expected)
    assert_same(shared.observe(), alone.observe())
    seen, wanted = shared.policy_input(shared.observe()), alone.policy_input(alone.observe())
    np.testing.assert_array_equal(seen.states, wanted.states)
    assert seen.images.keys() == wanted.images.keys()


def test_masks_ends_and_new_episodes_are_the_same(shared, alone) -> None:
    """Time-outs in the middle of a chunk, rows that pause, and episodes that begin while others run."""
    found = []
    for env in (shared, alone):
        env.reset(seed=[1, 2, 3])
        paused = env.chunk_step(random_actions(12), np.array([True, False, True]))
        begun, _ = env.reset(seed=[None, 9, None], options={"reset_mask": np.array([False, True, False])})
        ended = env.chunk_step(random_actions(30, 1), ALL)
        assert ended.steps.tolist() == [28, 30, 28]
        assert ended.time_out.tolist() == [True, False, True]
        with pytest.raises(ResetNeeded, match=r"\[0, 2\]"):
            env.chunk_step(random_actions(1), ALL)
        last = env.chunk_step(random_actions(12, 2), np.array([False, True, False]))
        found.append((paused, begun, ended, last, env.elapsed.tolist(), env.seeds, env.prompts()))
    for mine, other in zip(*found, strict=True):
        if isinstance(mine, ChunkStep):
            assert_same_step(mine, other)
        elif isinstance(mine, dict):
            assert_same(mine, other)
        else:
            assert mine == other


def test_images_are_those_of_the_end_where_all_episodes_end_early(shared, alone) -> None:
    """Before the last block of a chunk, so that nothing is left to step when the images are due."""
    found = []
    for env in (shared, alone):
        env.reset(seed=[1, 2, 3])
        env.chunk_step(random_actions(36), ALL)
        found.append(env.chunk_step(5 * random_actions(BLOCK + 4, 1), ALL))
        assert found[-1].steps.tolist() == [4] * ROWS
    assert_same_step(*found)


def test_frames_are_the_same_after_every_step(shared, alone) -> None:
    found = []
    for env in (shared, alone):
        env.reset(seed=[1, 2, 3])
        frames: dict[tuple[int, int], np.ndarray] = {}

        def on_frame(i: int, t: int, env=env, frames=frames) -> None:
            frames[i, t] = env.render_frame(i, 24 if i else 48)

        step = env.chunk_step(random_actions(3), ALL, on_frame)
        found.append((step, frames))
    (step, frames), (expected, wanted) = found
    assert_same_step(step, expected)
    assert frames.keys() == wanted.keys() == {(i, t) for i in range(ROWS) for t in range(3)}
    for at, frame in frames.items():
        np.testing.assert_array_equal(frame, wanted[at])
    before = frames[0, 0].copy()
    shared.render_frame(1, 48)
    np.testing.assert_array_equal(frames[0, 0], before)


def test_steps_and_experts_are_the_same(shared, alone) -> None:
    found = []
    for env in (shared, alone):
        observation, _ = env.reset(seed=[1, 2, 3])
        expert, rows = env.expert(), []
        for _ in range(5):
            observation, *rest = env.step(expert.act(observation, ALL))
            rows.append((observation, rest))
        found.append((expert.version, rows))
    (version, rows), (wanted, expected) = found
    assert version == wanted
    for (mine, results), (other, others) in zip(rows, expected, strict=True):
        assert_same(mine, other)
        assert repr(results) == repr(others)


def test_success_is_the_same() -> None:
    """The expert's whole episodes, with their subtasks."""
    settings = SETTINGS | {"max_episode_steps": 240}
    found = []
    for make in (partial(StackCubeProcesses, workers=2), StackCubeVectorEnv):
        env = make(2, TASK, **settings)
        observation, _ = env.reset(seed=[0, 1])
        expert, active, rows = env.expert(), np.ones(2, bool), []
        while active.any():
            step = env.chunk_step(expert.act(observation, active)[:, None], active, images=False)
            observation, active = step.observation, active & ~(step.success | step.time_out)
            rows.append(step)
        assert step.success.any()
        found.append(rows)
        env.close()
    for mine, other in zip(*found, strict=True):
        assert_same_step(mine, other)


def test_any_thread_may_use_it(shared, alone) -> None:
    """Nothing of it lies in this process that belongs to a thread, as a GL context does."""
    found = {}

    def play() -> None:
        shared.reset(seed=5)
        found["step"] = shared.chunk_step(random_actions(4), ALL)

    thread = threading.Thread(target=play)
    thread.start()
    thread.join()
    alone.reset(seed=5)
    assert_same_step(found["step"], alone.chunk_step(random_actions(4), ALL))


def test_a_killed_process_ends_all_and_is_reported_by_every_later_order() -> None:
    env = StackCubeProcesses(2, TASK, workers=2, **SETTINGS)
    pids = [process.child.pid for process in env.crew.processes]
    env.reset(seed=0)
    os.kill(pids[1], signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(SimulatorDied, match=r"A process of stack2 \(process \d+\) ended with signal 9"):
            env.step(np.zeros((2, 7)))
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    env.close()
    with pytest.raises(SimulatorError, match="closed"):
        env.reset(seed=0)


def test_what_cannot_be_made_is_said_before_anything_starts() -> None:
    with pytest.raises(SimulatorError, match="vulkan"):
        StackCubeProcesses(2, TASK, renderer="vulkan")
    with pytest.raises(SimulatorError, match="image_size"):
        StackCubeProcesses(2, TASK, image_size=0)
