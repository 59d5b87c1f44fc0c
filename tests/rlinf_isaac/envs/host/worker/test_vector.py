"""Rows in one `VectorEnv` give what single environments give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from rlinf_isaac.envs.host.env import HostEnv
from rlinf_isaac.ground.errors import SimulatorDied, SimulatorError
from rlinf_isaac.tasks.paths import leaves

N = 4
pytestmark = pytest.mark.skipif(
    not hasattr(gymnasium.vector, "AutoresetMode"), reason="gymnasium 1.0 has no vector environment without autoreset"
)


@pytest.fixture
def start(toy_task) -> Iterator[Callable[..., HostEnv]]:
    started = []

    def make(function: str, rows: int = N, workers: int = 1, **env: Any) -> HostEnv:
        started.append(HostEnv(rows, toy_task(make=f"toy.py:{function}", **env), workers=workers))
        return started[-1]

    yield make
    for each in started:
        each.close()


def played(env: HostEnv) -> list[dict[str, np.ndarray]]:
    """Chunks of episodes that end at different steps, and of those that begin in their place."""
    observation, _ = env.reset(seed=[3, 1, 2, 9])
    seen, seed = [leaves(observation)], 20
    running = np.ones(N, bool)
    for chunk in range(8):
        noise = np.random.default_rng(chunk).normal(0, 0.3, (N, 5, 2))
        actions = noise + np.reshape([-3, -2, 1, -3], (N, 1, 1)) * observation["point"][:, None]
        step = env.chunk_step(actions, running)
        ended = step.terminated | step.time_out
        seen.append(leaves(step.observation) | {"rewards": step.rewards, "steps": step.steps, **step.extras})
        seen.append({"outcome": np.array([str(step.outcome(i)) for i in range(N)])})
        observation, running = step.observation, running & ~ended
        if ended.any() and chunk % 2:  # some rows wait for a chunk before they begin anew
            seed += N
            observation, _ = env.reset(seed=list(range(seed, seed + N)), options={"reset_mask": ~running})
            running[:] = True
            seen.append(leaves(observation))
    return seen


@pytest.mark.parametrize("names", [("Plane", "several"), ("Drawn", "drawing")], ids=["images", "drawn"])
@pytest.mark.parametrize("workers", [1, 3])
def test_episodes_are_those_of_single_environments(start, workers, names) -> None:
    options = {"options": {"radius": 0.15, "cuts": 13}, "max_steps": 11}
    single, several = (played(start(name, workers=workers, **options)) for name in names)
    outcomes = {str(each) for entry in single if "outcome" in entry for each in entry["outcome"]}
    assert {"success", "timeout", "None"} <= outcomes, "nothing that could go wrong has happened"
    assert len(single) == len(several)
    for one, other in zip(single, several, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"drawn"}:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_what_it_comes_from_is_named(start) -> None:
    one, other = start("Plane", 1), start("several", 2)
    assert one.identity.backend == other.identity.backend


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", None])
def test_one_that_starts_episodes_by_itself_is_refused(start, mode) -> None:
    with pytest.raises(SimulatorError, match=r"\[env-autoreset\].*(.|\n)*AutoresetMode\.DISABLED"):
        start("several", options={"mode": mode})


def test_one_that_is_none_and_one_that_does_not_say_so_are_refused(start) -> None:
    with pytest.raises(SimulatorError, match=r"\[env-not-made\].*no VectorEnv of 4"):
        start("several", options={"single": True})
    with pytest.raises(SimulatorError, match=r"\[env-not-made\].*has a parameter num_envs"):
        start("together")


def test_an_episode_that_was_left_out_of_a_step_cannot_go_on(start) -> None:
    env = start("several", 2)
    env.reset(seed=[0, 1])
    env.chunk_step(np.zeros((2, 1, 2)), np.array([True, False]))
    env.reset(seed=[5, 5], options={"reset_mask": np.array([False, True])})
    env.chunk_step(np.zeros((2, 1, 2)), np.ones(2, bool))
    env.chunk_step(np.zeros((2, 1, 2)), np.array([True, False]))
    with pytest.raises(SimulatorDied, match="left out of a step"):
        env.chunk_step(np.zeros((2, 1, 2)), np.ones(2, bool))


def outcomes_of_experts(env: HostEnv) -> list[str]:
    """How the episodes of seeds 0, 1, ... end that a task's expert plays."""
    observation, _ = env.reset(seed=list(range(N)))
    expert, active, outcomes = env.expert(), np.ones(N, bool), [""] * N
    while active.any():
        step = env.chunk_step(expert.act(observation, active)[:, None], active)
        observation = step.observation
        for i in np.flatnonzero(active & (step.terminated | step.time_out)).tolist():
            outcomes[i] = str(step.outcome(i))
            active[i] = False
    return outcomes


def test_the_expert_of_a_row_has_the_environment_of_that_row(start) -> None:
    env = start("several", changes={"expert": "toy.py:Insider"}, workers=2)
    assert outcomes_of_experts(env) == ["success"] * N


def test_where_rows_have_none_of_their_own_it_has_the_vector_environment(start) -> None:
    env = start("joined", changes={"expert": "toy.py:Outsider"}, workers=2)
    assert outcomes_of_experts(env) == ["success"] * N


def test_images_are_drawn_when_asked_for(start) -> None:
    env = start("drawing")
    before = env.reset(seed=[0, 1, 2, 3])[0]
    assert before["drawn"].tolist() == [1] * N, "once, to see what they are like"
    step = env.chunk_step(np.full((N, 5, 2), 0.3), np.ones(N, bool), images=False)
    assert "pixels" not in step.observation
    after = env.observe()
    assert after["pixels"]["top"][:, 0, 0, 0].tolist() == [5] * N, "the count of steps, which is painted there"
    assert env.chunk_step(np.zeros((N, 1, 2)), np.ones(N, bool)).observation["drawn"].tolist() == [3] * N
