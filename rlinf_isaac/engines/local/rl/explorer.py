"""Plays training episodes with exploration noise and stores what the update needs of every policy call."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rlinf_isaac.engines.exploration import act_exploring, exploration_draws
from rlinf_isaac.engines.local.rl.experience import Played
from rlinf_isaac.engines.rollout import Clock, Draw, Episode, rollout
from rlinf_isaac.envs.lanes import Lanes
from rlinf_isaac.envs.vector import TaskEnv
from rlinf_isaac.pi0.flow_policy import Draws, FlowActorCritic
from rlinf_isaac.pi0.policy import Processor

STREAM = 4
"""Part of the seed; makes these random numbers independent of those for other purposes under the same `rl.seed`."""


class Explorer:
    """A `rollout.Policy` that samples from a `FlowActorCritic`.

    Attributes:
        calls: one entry per policy call, with the inputs, transitions, log-probabilities and values of the batch.
        seconds: time spent in the policy.
    """

    def __init__(self, policy: FlowActorCritic, processor: Processor) -> None:
        self.policy, self.processor = policy, processor
        self.calls: list[dict[str, np.ndarray]] = []
        self.seconds = 0.0

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape (H, A) of the flow: action horizon and action dims of the model."""
        return self.policy.model.config.action_horizon, self.policy.model.config.action_dim

    def act(
        self, images: Mapping[str, np.ndarray], states: np.ndarray, prompts: Sequence[str], noise: Draws
    ) -> np.ndarray:
        """(N, chunk, A) float32 actions for N observations. Raises TrainingDiverged as `act_exploring`."""
        began = time.perf_counter()
        chunk, transitions, evaluated = act_exploring(self.policy, self.processor, images, states, prompts, noise)
        kept = {**transitions._asdict(), "log_prob": evaluated.log_prob, "value": evaluated.value}
        self.calls.append(
            {
                **{f"image.{view}": image for view, image in images.items()},
                "state": states,
                **{name: tensor.cpu().numpy() for name, tensor in kept.items()},
            }
        )
        self.seconds += time.perf_counter() - began
        return chunk


class Rollout(NamedTuple):
    """Episodes, number of policy calls, and time in seconds; `policy_seconds` is the part of the policy, and
    `wait_seconds` the part in which it waited for the environments."""

    episodes: list[Played]
    calls: int
    seconds: float
    policy_seconds: float
    wait_seconds: float


def explore(
    env: TaskEnv | Lanes,
    policy: FlowActorCritic,
    processor: Processor,
    seeds: Sequence[int],
    indices: Sequence[int],
    *,
    iteration: int,
) -> Rollout:
    """Play one training episode per seed. The noise is a function of (rl.seed, iteration, index, call).

    Args:
        env: vector environment, or several that play in turn.
        policy, processor: policy of a checkpoint, with its pre- and post-processing.
        seeds: reset seeds.
        indices: for each seed, the index of its episode in the iteration.
        iteration: iteration of the training, counted from 1.
    """
    began = time.perf_counter()
    explorer, clock = Explorer(policy, processor), Clock()
    played = []
    for episode in rollout(env, explorer, seeds, policy_seed=0, draw=_draw(policy, indices, iteration), clock=clock):
        rows = [(explorer.calls[chunk.call], chunk.row) for chunk in episode.chunks]
        played.append(
            Played(
                index=indices[episode.index],
                seed=episode.seed,
                prompt=env.task.prompt(episode.seed),
                success=episode.outcome == "success",
                length=episode.length,
                rewards=np.array([chunk.reward for chunk in episode.chunks]),
                subtasks=tuple(chunk.subtasks for chunk in episode.chunks),
                arrays={name: np.stack([call[name][row] for call, row in rows]) for name in rows[0][0]},
            )
        )
    seconds = time.perf_counter() - began
    return Rollout(played, len(explorer.calls), seconds, explorer.seconds, clock.waited)


def _draw(policy: FlowActorCritic, indices: Sequence[int], iteration: int) -> Draw:
    def draw(running: Sequence[Episode | None]) -> Draws:
        # An empty slot: any randomness will do.
        keys = [(indices[episode.index], episode.calls) if episode else (0, 0) for episode in running]
        return exploration_draws(policy, [(STREAM, iteration, *key) for key in keys])

    return draw
