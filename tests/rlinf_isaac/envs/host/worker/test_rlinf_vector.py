"""Environments of RLinf: the rows, the instructions, and that they are never taken for pairs; RLinf's own, opt-in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlinf_isaac.engines.rollout import rollout
from rlinf_isaac.envs.conformance.bench import Bench
from rlinf_isaac.envs.conformance.suite import EPISODE, START, run_suite
from rlinf_isaac.envs.host.env import HostEnv
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.registry import find_task
from rlinf_isaac.tasks.task import Task

N = 3
PYTHON = os.environ.get("RLINF_METAWORLD_PYTHON")


@pytest.fixture
def planes(toy_task) -> Callable[..., Task]:
    cameras = {"base_0_rgb": {"dataset": "top", "env": "main_images"}}
    cameras["left_wrist_0_rgb"] = {"dataset": "hand", "env": "extra_view_images/1"}

    def make(prompt: str = "dataset", expert: str | None = None, **env: Any) -> Task:
        state = {"dims": 2, "env": "states"}
        changes = {"prompts": prompt, "cameras": cameras, "state": state, "expert": expert}
        values = {"kind": "rlinf", "success": "info.success>=1", **env}
        return toy_task(make="rlinf_toy.py:Planes", changes=changes, **values)

    return make


@pytest.fixture
def start() -> Iterator[Callable[..., HostEnv]]:
    started: list[HostEnv] = []

    def make(task: Task, rows: int = N, **values: Any) -> HostEnv:
        started.append(HostEnv(rows, task, **values))
        return started[-1]

    yield make
    for each in started:
        each.close()


class Home:
    """A policy that pushes every point to 0, and keeps what it was told."""

    noise_shape = (1, 2)

    def __init__(self) -> None:
        self.told: list[list[str]] = []

    def act(self, images: Any, states: np.ndarray, prompts: Any, noise: Any) -> np.ndarray:
        self.told.append(list(prompts))
        assert images["left_wrist_0_rgb"][0, 0, 0, 0] == images["base_0_rgb"][0, 0, 0, 0] + 2
        return np.clip(np.repeat(-states[:, None] / 0.1, 4, axis=1), -1, 1) * np.reshape([1, 1, 0, 0], (1, 4, 1))


def test_rows_begin_together_with_the_instructions_of_the_environment(planes, start) -> None:
    env, policy = start(planes(options={"seed": 5}, max_steps=60)), Home()
    assert env.together
    assert not env.identity.seeded
    assert env.identity.as_dict()["seeded"] is False
    episodes = list(rollout(env, policy, range(7), policy_seed=0, video_size=0))
    assert sorted(each.seed for each in episodes) == list(range(7))
    assert {each.outcome for each in episodes} == {"success"}
    assert all(each.extras["episode/success_once"] == 1 and "episode/return" not in each.extras for each in episodes)
    # 7 episodes in 3 rows are three beginnings; between them the rows have the same instructions.
    told = [each for each, before in zip(policy.told, [None, *policy.told], strict=False) if each != before]
    assert len(told) == 3
    assert all(text.startswith("push point ") for each in told for text in each)
    generator = np.random.default_rng(5)
    generator.uniform(-1, 1, (N, 2)), generator.integers(0, 100, N)  # the reset with which it is made
    generator.uniform(-1, 1, (N, 2))
    assert told[0] == [f"push point {k}" for k in generator.integers(0, 100, N)]


def test_rows_of_which_some_have_ended(planes, start) -> None:
    env = start(planes(prompt="push it", max_steps=5))
    assert env.prompts() == ["push it"] * N
    env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="begin in all rows together"):
        env.reset(seed=[1, 2, 3], options={"reset_mask": np.array([True, False, False])})
    first = env.chunk_step(np.zeros((N, 3, 2), np.float32), np.ones(N, bool))
    assert first.steps.tolist() == [3] * N
    last = env.chunk_step(np.zeros((N, 3, 2), np.float32), np.ones(N, bool))
    assert last.steps.tolist() == [2] * N
    assert last.time_out.all()


def test_an_expert_has_no_seed_to_play_from(planes, start) -> None:
    env = start(planes(expert="toy.py:Expert"))
    env.reset(seed=[1, 2, 3])
    with pytest.raises(SimulatorError, match=r"\[env-not-made\].*takes none for an episode"):
        env.expert()


def test_a_new_process_meets_other_starts(planes, start) -> None:
    states = [start(planes()).reset(seed=[1, 2, 3])[0]["states"] for _ in range(2)]
    assert not np.array_equal(*states)


def test_an_environment_without_instructions_needs_a_prompt(planes) -> None:
    with pytest.raises(SimulatorError) as refusal:
        HostEnv(1, planes(options={"speaks": False}))
    assert [each.code for each in refusal.value.problems] == ["no-prompt"]


def test_doctor_warns_once_and_plays_nothing_twice(planes, start) -> None:
    task = planes(prompt="push it", max_steps=30)
    bench = Bench(lambda rows, steps: start(task, rows, max_steps=steps), task)
    results = {each.name: each for each in run_suite(bench)}
    assert [each.code for each in results[START].problems] == ["env-unseeded"]
    assert results[START].result == "warning"
    assert results[EPISODE].result == "skipped"
    codes = {problem.code for each in results.values() for problem in each.problems if problem.level == "error"}
    assert not codes


def test_what_rlinf_itself_needs(planes) -> None:
    from rlinf_isaac.envs.host.interpreter import needed_by

    env = planes().env
    assert "rlinf" not in needed_by(env)
    assert "rlinf" in needed_by(replace(env, make="metaworld"))
    assert "rlinf" in needed_by(replace(env, make="rlinf.envs.metaworld.metaworld_env:MetaWorldEnv"))


@pytest.mark.guests
@pytest.mark.skipif(PYTHON is None, reason="RLINF_METAWORLD_PYTHON names no interpreter")
def test_meta_world_as_rlinf_has_it(start) -> None:
    env = start(find_task("examples/tasks/rlinf_metaworld.yaml"), 2, max_steps=3)
    assert env.identity.backend == "rlinf-rlinf-0.3.0"
    assert {"metaworld", "torch", "rlinf"} <= env.report["versions"].keys() | {"rlinf"}
    policy = SimpleNamespace(noise_shape=(1, 4), act=lambda images, states, prompts, noise: np.zeros((2, 2, 4), "f4"))
    episodes = list(rollout(env, policy, range(3), policy_seed=0, video_size=0))
    assert [each.outcome for each in episodes] == ["timeout"] * 3
    assert all(len(text) > 5 for text in env.prompts())


def test_the_kind_is_read_as_the_others(planes) -> None:
    task = planes()
    assert from_dict(task.as_dict(), "again") == task
