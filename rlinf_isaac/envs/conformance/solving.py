"""Whole episodes: the expert solves the task, and what ends an episode is what the task says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rlinf_isaac.envs.conformance.bench import ROWS, SEED, Bench, Look, chunk, foreign, reset
from rlinf_isaac.envs.conformance.ends import leaves_its_episode
from rlinf_isaac.envs.vector import Observation
from rlinf_isaac.ground.errors import Problem

EPISODES = 4
SOLVED = 0.5
"""An expert that solves a smaller share of its episodes is worth a warning."""
RANDOM_STEPS = 400
"""Control steps after which a random episode is given up."""

Choose = Callable[[Observation, np.ndarray], np.ndarray]


@dataclass
class Whole:
    """An episode from its start to its end.

    Attributes:
        states: (D,) after the reset and after every step.
        rewards: of every step.
        outcome: how it ended; None: it was given up.
        numbers: further numbers after its last step.
    """

    states: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    outcome: str | None = None
    numbers: dict[str, float] = field(default_factory=dict)


def expert_solves(bench: Bench) -> Look:
    """The scripted expert reaches success, and the episode ends there.

    A task that nobody can solve under its own success term measures nothing; a reward is no success.
    """
    if bench.task.expert is None:
        return Look("the task names no expert: whether success can be reached is not known", skipped=True)
    episodes = []
    for seed in range(SEED, SEED + EPISODES, ROWS):
        observation = reset(bench.env, [seed, seed + 1])
        episodes += _whole(bench, observation, bench.expert().act, bench.env.identity.max_episode_steps)
    solved = [each for each in episodes if each.outcome == "success"]
    lengths = [len(each.rewards) for each in solved]
    seen = f"{len(solved)} of {EPISODES} solved" + (f" in {np.mean(lengths):.0f} steps" if lengths else "")
    bench.facts["expert_solved"] = len(solved) / EPISODES
    problems = leaves_its_episode([(each.states, each.outcome) for each in episodes]) + _own_limit(bench, episodes)
    if len(solved) >= SOLVED * EPISODES:
        return Look(seen, tuple(problems))
    term = bench.task.env.success if bench.task.env else "success"
    failed = next(each for each in episodes if each.outcome != "success")
    numbers = ", ".join(f"{name} {value:g}" for name, value in sorted(failed.numbers.items())[:8])
    cause = (
        f"the expert solves {len(solved)} of {EPISODES} episodes by {term}; one ended with {failed.outcome} after "
        f"{len(failed.rewards)} steps, its largest reward was {max(failed.rewards):g}"
        + (f"; info ended with {numbers}" if numbers else "")
    )
    cure = "name in env.success what a solved episode has, raise env.max_steps, or correct the expert"
    if not solved:
        problems.append(Problem("env-expert-fails", cause, cure))
    else:
        problems.append(Problem("env-expert-fails", cause, cure, "warning"))
    return Look(seen, tuple(problems))


def random_episodes(bench: Bench) -> Look:
    """Episodes of random actions run until their time is up, or end as the task says.

    A limit of the environment's own that is shorter than the task's cuts episodes off before they can be solved.
    """
    steps = min(RANDOM_STEPS, bench.env.identity.max_episode_steps)
    actions = bench.actions(steps)
    clock = iter(range(steps))
    observation = reset(bench.env, [SEED, SEED + 1])
    episodes = _whole(bench, observation, lambda _, __: actions[:, next(clock)], steps)
    problems = leaves_its_episode([(each.states, each.outcome) for each in episodes]) + _own_limit(bench, episodes)
    return Look(", ".join(f"{each.outcome or 'runs'} after {len(each.rewards)}" for each in episodes), tuple(problems))


def _whole(bench: Bench, observation: Observation, choose: Choose, most: int) -> list[Whole]:
    """Play episodes, which have been started, to their ends."""
    env, active = bench.env, np.ones(ROWS, bool)
    episodes = [Whole([state]) for state in bench.states(observation)]
    for _ in range(most):
        with foreign():
            actions = np.asarray(choose(observation, active), np.float32)
        step = chunk(env, actions[:, None], active, images=False)
        observation = step.observation
        states = bench.states(observation)
        for i in np.flatnonzero(active).tolist():
            episodes[i].states.append(states[i])
            episodes[i].rewards.append(float(step.rewards[i, 0]))
            episodes[i].outcome = step.outcome(i)
            episodes[i].numbers = {name: float(values[i]) for name, values in step.extras.items()}
            active[i] = episodes[i].outcome is None
        if not active.any():
            break
    return episodes


def _own_limit(bench: Bench, episodes: list[Whole]) -> list[Problem]:
    """A problem if an episode was over its time before that of the task was up."""
    limit = bench.env.identity.max_episode_steps
    for each in episodes:
        if each.outcome == "timeout" and len(each.rewards) < limit:
            cause = f"the environment truncates after {len(each.rewards)} steps, env.max_steps is {limit}"
            cure = "give both the same limit (gymnasium: max_episode_steps in env.options)"
            return [Problem("env-own-limit", cause, cure, "warning")]
    return []
