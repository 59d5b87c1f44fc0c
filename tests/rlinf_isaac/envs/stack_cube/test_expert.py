from __future__ import annotations

import numpy as np
import pytest
from support import arm_contacts

from rlinf_isaac.config.task import stack_cube
from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv
from rlinf_isaac.envs.stack_cube.contract import TASKS
from rlinf_isaac.envs.stack_cube.expert import ScriptedExpert

LIMITS = {"stack2": 240, "stack3": 600}


def episode(env: StackCubeVectorEnv, seed: int, noise: float = 0.0) -> tuple[bool, int]:
    """(success, control steps) of the expert on one seed, without rendering."""
    rng, expert = np.random.default_rng(seed), ScriptedExpert()
    env.reset(seed=seed)
    while True:
        action = expert.act(env.observe(images=False)["policy"])
        action[:6] += rng.normal(0, noise, 6)
        chunk = env.chunk_step(action[None, None], np.ones(1, bool), images=False)
        if chunk.outcome(0):
            return bool(chunk.success[0]), int(env.elapsed[0])


def make(task: str) -> StackCubeVectorEnv:
    return StackCubeVectorEnv(1, stack_cube(task), image_size=8, renderer="rays", max_episode_steps=LIMITS[task])


@pytest.mark.parametrize("task", TASKS)
def test_expert_solves_ten_seeds(task: str) -> None:
    env = make(task)
    assert sum(episode(env, seed)[0] for seed in range(10)) >= 9
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "noise"), [("stack2", 0.0), ("stack2", 0.02), ("stack3", 0.0)])
def test_expert_solves_95_of_100_seeds(task: str, noise: float) -> None:
    env = make(task)
    results = [episode(env, seed, noise) for seed in range(100)]
    print(task, noise, sum(success for success, _ in results), "mean steps", np.mean([steps for _, steps in results]))
    assert sum(success for success, _ in results) >= 95
    env.close()


def test_hovering_touches_nothing() -> None:
    env = make("stack3")
    for seed in range(5):
        env.reset(seed=seed)
        expert = ScriptedExpert()
        while expert.phase == "hover":
            env.chunk_step(expert.act(env.observe(images=False)["policy"])[None, None], np.ones(1, bool), images=False)
            assert arm_contacts(env._simulation, 0) == []
    env.close()


def test_expert_picks_a_lost_cube_up_again() -> None:
    env = make("stack2")
    env.reset(seed=0)
    expert, thrown, phases = ScriptedExpert(), False, []
    success = False
    while not success and env.elapsed[0] < LIMITS["stack2"]:
        action = expert.act(env.observe(images=False)["policy"])
        phases.append(expert.phase)
        if expert.phase == "carry" and not thrown:
            env._simulation.data[0].joint("cube_2").qpos[:3] = [0.5, 0.15, 0.0203]
            thrown = True
        success = bool(env.chunk_step(action[None, None], np.ones(1, bool), images=False).success[0])
    assert thrown
    assert success
    assert "hover" in phases[phases.index("carry") :]
    env.close()


def test_expert_rests_when_everything_is_stacked() -> None:
    env = make("stack3")
    policy = env.reset(seed=0)[0]["policy"]
    policy["cube_positions"] = np.array([[0.5, 0, z] for z in (0.0203, 0.0671, 0.1139)], np.float32).reshape(1, 9)
    assert ScriptedExpert().act(policy).tolist() == [0, 0, 0, 0, 0, 0, 1]
    env.close()
