from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from rlinf_isaac.config.task import stack_cube
from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.envs.stack_cube.expert import ScriptedExpert
from rlinf_isaac.envs.vector import Observation
from rlinf_isaac.ground.digest import json_digest

SIZE = 16


def make(num_envs: int = 2, task: str = "stack2", **settings: object) -> StackCubeVectorEnv:
    return StackCubeVectorEnv(
        num_envs, stack_cube(task), image_size=SIZE, **{"renderer": "rays", "max_episode_steps": 40} | settings
    )


@pytest.fixture
def env() -> Iterator[StackCubeVectorEnv]:
    env = make()
    yield env
    env.close()


def random_actions(num_envs: int, steps: int, seed: int = 0) -> np.ndarray:
    actions = np.random.default_rng(seed).normal(0, 0.1, (num_envs, steps, 7))
    return actions.astype(np.float32)


def row(observation: Observation, i: int) -> dict[str, np.ndarray]:
    return {key: value[i] for group in observation.values() for key, value in group.items()}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.mark.parametrize("task", contract.TASKS)
def test_observations_follow_the_contract(task: str) -> None:
    env = make(3, task)
    spec = contract.observation_spec(contract.TASKS[task], SIZE)
    stepped = env.reset(seed=0)[0], env.step(random_actions(3, 1)[:, 0])[0]
    for observation in (*stepped, env.chunk_step(random_actions(3, 2), np.ones(3, bool)).observation):
        assert list(observation) == list(spec)
        for group, arrays in spec.items():
            assert list(observation[group]) == list(arrays)
            for key, (shape, dtype) in arrays.items():
                assert observation[group][key].shape == (3, *shape), key
                assert observation[group][key].dtype == dtype, key
        assert env.observation_space.contains(observation)
    env.close()


def test_an_episode_is_a_function_of_its_seed(env: StackCubeVectorEnv) -> None:
    """Whatever the slot, the number of envs, and what happened in the slot before."""
    actions = random_actions(1, 5)[0]

    def episode(env: StackCubeVectorEnv, slot: int) -> list[dict[str, np.ndarray]]:
        seeds = [100 + i for i in range(env.num_envs)]
        seeds[slot] = 7
        rows = [row(env.reset(seed=seeds)[0], slot)]
        for action in actions:
            noise = random_actions(env.num_envs, 1, seed=env.num_envs)[:, 0]
            noise[slot] = action
            rows.append(row(env.step(noise)[0], slot))
        return rows

    first = episode(env, 0)
    env.chunk_step(random_actions(2, 20, seed=3), np.ones(2, bool))
    again = episode(env, 0)
    other_slot = episode(env, 1)
    wider = make(3)
    for rows in (again, other_slot, episode(wider, 2)):
        for one, other in zip(first, rows, strict=True):
            assert_same(one, other)
    wider.close()


def test_int_seed_counts_up_and_none_draws(env: StackCubeVectorEnv) -> None:
    counted, _ = env.reset(seed=7)
    assert env.seeds == [7, 8]
    listed, _ = env.reset(seed=[7, 8])
    for i in range(2):
        assert_same(row(counted, i), row(listed, i))
    env.reset()
    drawn = list(env.seeds)
    env.reset()
    assert len({*drawn, *env.seeds}) == 4


def test_reset_mask_leaves_the_others_alone(env: StackCubeVectorEnv) -> None:
    env.reset(seed=0)
    before, *_ = env.step(random_actions(2, 1)[:, 0])
    after, _ = env.reset(seed=[9, None], options={"reset_mask": np.array([True, False])})
    assert_same(row(before, 1), row(after, 1))
    assert (after["policy"]["cube_positions"][0] != before["policy"]["cube_positions"][0]).any()
    assert env.elapsed.tolist() == [0, 1]
    assert env.seeds == [9, 1]


def test_chunk_step_is_single_steps(env: StackCubeVectorEnv) -> None:
    actions = random_actions(2, 6)
    env.reset(seed=0)
    for t in range(6):
        observation, *_ = env.step(actions[:, t])
    env.reset(seed=0)
    chunk = env.chunk_step(actions, np.ones(2, bool))
    assert chunk.steps.tolist() == [6, 6]
    for i in range(2):
        assert_same(row(observation, i), row(chunk.observation, i))


def test_inactive_envs_stay(env: StackCubeVectorEnv) -> None:
    before, _ = env.reset(seed=0)
    chunk = env.chunk_step(random_actions(2, 4), np.array([False, True]))
    assert_same(row(before, 0), row(chunk.observation, 0))
    assert chunk.steps.tolist() == [0, 4]
    assert env.elapsed.tolist() == [0, 4]


def test_images_that_were_left_out_are_drawn_when_they_are_asked_for(env: StackCubeVectorEnv) -> None:
    actions, active = 5 * random_actions(2, 12), np.array([True, False])
    env.reset(seed=0)
    drawn = env.chunk_step(actions, active).observation
    env.reset(seed=0)
    assert "table_cam" not in env.chunk_step(actions, active, images=False).observation["policy"]
    late = env.observe()
    for i in range(2):
        assert_same(row(drawn, i), row(late, i))


def test_frames_come_after_every_control_step(env: StackCubeVectorEnv) -> None:
    env.reset(seed=0)
    env.chunk_step(random_actions(2, 38), np.array([True, False]))  # env 0 has two steps left
    calls: list[tuple[int, int]] = []
    frames = []

    def on_frame(i: int, t: int) -> None:
        calls.append((i, t))
        frames.append(env.render_frame(i, 24))

    env.chunk_step(random_actions(2, 4), np.ones(2, bool), on_frame)
    assert calls == [(0, 0), (1, 0), (0, 1), (1, 1), (1, 2), (1, 3)]
    assert frames[0].shape == (24, 48, 3)
    assert frames[0].dtype == np.uint8
    assert (frames[0] != frames[2]).any()


def test_time_out_truncates_and_a_done_env_must_be_reset(env: StackCubeVectorEnv) -> None:
    env.reset(seed=0)
    for t in range(40):
        _, reward, terminated, truncated, info = env.step(np.zeros((2, 7), np.float32))
        assert truncated.tolist() == [t == 39] * 2
    assert info["time_out"].all()
    assert not terminated.any()
    assert not reward.any()
    with pytest.raises(ResetNeeded, match=r"\[0, 1\]"):
        env.step(np.zeros((2, 7), np.float32))
    env.reset(seed=[0, None], options={"reset_mask": np.array([True, False])})
    chunk = env.chunk_step(random_actions(2, 1), np.array([True, False]))
    assert chunk.time_out.tolist() == [False, True]


def test_stepping_before_reset_is_an_error(env: StackCubeVectorEnv) -> None:
    with pytest.raises(ResetNeeded):
        env.step(np.zeros((2, 7), np.float32))


def test_a_fallen_cube_terminates_without_success(env: StackCubeVectorEnv) -> None:
    env.reset(seed=0)
    data = env._simulation.data[1]
    data.joint("cube_1").qpos[:3] = [0.5, 0.7, -0.049]  # beside the table, falling
    _, reward, terminated, truncated, info = env.step(np.zeros((2, 7), np.float32))
    assert terminated.tolist() == info["dropped"].tolist() == [False, True]
    assert not reward.any()
    assert not truncated.any()
    assert not info["success"].any()


def test_success_rewards_once_ends_the_chunk_and_returns_the_terminal_observation(env: StackCubeVectorEnv) -> None:
    env.reset(seed=0)
    joints = [env._simulation.data[1].joint(name) for name in ("cube_1", "cube_2")]
    joints[1].qpos[:] = joints[0].qpos
    joints[1].qpos[2] += contract.CUBE_SIZE
    chunk = env.chunk_step(np.zeros((2, 5, 7), np.float32), np.ones(2, bool))
    assert chunk.success.tolist() == [False, True]
    assert chunk.steps[0] == 5
    assert chunk.steps[1] < 5
    expected = np.zeros(5)
    expected[chunk.steps[1] - 1] = 1
    assert chunk.rewards[1].tolist() == expected.tolist()
    assert not chunk.rewards[0].any()
    assert chunk.subtasks["stack_1"].tolist() == [False, True]
    cubes = chunk.observation["policy"]["cube_positions"][1].reshape(2, 3)
    assert cubes[1, 2] - cubes[0, 2] == pytest.approx(contract.CUBE_SIZE, abs=2e-3)


def test_subtasks_are_remembered_through_a_chunk() -> None:
    env = make(1, max_episode_steps=300)
    env.reset(seed=0)
    expert, grasped_at_some_step = ScriptedExpert(), False
    reached = {"grasp_1": False, "stack_1": False}
    done = False
    while not done:
        action = expert.act(env.observe(images=False)["policy"])
        chunk = env.chunk_step(action[None, None], np.ones(1, bool), images=False)
        reached = {name: reached[name] or bool(chunk.subtasks[name][0]) for name in reached}
        grasped_at_some_step |= bool(chunk.observation["subtask_terms"]["grasp_1"][0])
        done = bool(chunk.success[0] | chunk.time_out[0])
    assert reached == {"grasp_1": True, "stack_1": True}
    assert grasped_at_some_step
    assert not chunk.observation["subtask_terms"]["grasp_1"][0]
    assert contract.TABLE_CAM not in chunk.observation["policy"]
    env.close()


def test_returned_arrays_do_not_change_later(env: StackCubeVectorEnv) -> None:
    observation, _ = env.reset(seed=0)
    copy = {key: value.copy() for key, value in row(observation, 0).items()}
    env.step(random_actions(2, 1)[:, 0])
    assert_same(copy, row(observation, 0))


@pytest.mark.parametrize(
    ("actions", "active"),
    [
        (np.zeros((2, 7)), np.ones(2, bool)),
        (np.zeros((3, 1, 7)), np.ones(2, bool)),
        (np.zeros((2, 1, 6)), np.ones(2, bool)),
        (np.zeros((2, 1, 7)), np.ones(3, bool)),
        (np.zeros((2, 1, 7)), np.ones(2, int)),
    ],
)
def test_wrong_shapes_are_named(env: StackCubeVectorEnv, actions: np.ndarray, active: np.ndarray) -> None:
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions are|active must be"):
        env.chunk_step(actions, active)


def test_not_a_number_is_refused(env: StackCubeVectorEnv) -> None:
    env.reset(seed=0)
    actions = random_actions(2, 2)
    actions[1, 1, 0] = np.nan
    with pytest.raises(ValueError, match="env 1"):
        env.chunk_step(actions, np.ones(2, bool))
    env.chunk_step(actions, np.array([True, False]))  # nobody acts on it


def test_identity_tells_environments_apart(env: StackCubeVectorEnv) -> None:
    same, other_task, other_size = (
        make(5),
        make(task="stack3"),
        StackCubeVectorEnv(1, stack_cube("stack2"), image_size=17, renderer="rays"),
    )
    assert env.identity == same.identity
    assert len({json_digest(e.identity.as_dict()) for e in (env, other_task, other_size)}) == 3
    assert env.identity.assets != other_task.identity.assets
    assert env.identity.renderer == "rays"
    assert env.identity.backend.startswith("mujoco-")


def test_closed_environment_says_so() -> None:
    env = make()
    env.reset(seed=0)
    env.close()
    with pytest.raises(Exception, match="closed"):
        env.step(np.zeros((2, 7), np.float32))
