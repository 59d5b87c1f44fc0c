"""A policy that explores: acts like `Pi0Policy`, but stochastically, and remembers what training needs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rlinf_isaac.engines.exploration import act_exploring, exploration_draws
from rlinf_isaac.engines.local.rl.experience import Played
from rlinf_isaac.engines.rollout import Draw, Episode, rollout
from rlinf_isaac.envs.stack_cube.vector import StackCubeEnv
from rlinf_isaac.pi0.flow_policy import Draws, FlowActorCritic
from rlinf_isaac.pi0.policy import Processor

STREAM = 4
"""Keeps these random numbers apart from those of other purposes under the same seed."""


class Explorer:
    """`rollout.Policy` over a `FlowActorCritic`. Every call adds one batch to `calls`."""

    def __init__(self, policy: FlowActorCritic, processor: Processor) -> None:
        self.policy, self.processor = policy, processor
        self.calls: list[dict[str, np.ndarray]] = []
        self.seconds = 0.0

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(H, A) of the flow."""
        return self.policy.model.config.action_horizon, self.policy.model.config.action_dim

    def act(
        self, images: Mapping[str, np.ndarray], states: np.ndarray, prompts: Sequence[str], noise: Draws
    ) -> np.ndarray:
        """(N, chunk, 7) float32 actions for N observations. Raises TrainingDiverged as `act_exploring`."""
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
    """Episodes, and the time they took. `policy_seconds` of `seconds` went to the policy."""

    episodes: list[Played]
    calls: int
    seconds: float
    policy_seconds: float


def explore(
    env: StackCubeEnv,
    policy: FlowActorCritic,
    processor: Processor,
    seeds: Sequence[int],
    indices: Sequence[int],
    *,
    state_layout: str,
    iteration: int,
) -> Rollout:
    """Play one exploring episode per seed. Randomness is a function of (rl.seed, iteration, index, call).

    Args:
        env: vector environment, as for `rollout`.
        policy, processor: of one checkpoint.
        seeds: of the environment's resets.
        indices: of these episodes among those of the iteration, which fill the places of `seeds`.
        state_layout: as for `rollout`.
        iteration: of the training, counted from 1.
    """
    began = time.perf_counter()
    explorer = Explorer(policy, processor)
    played = []
    for episode in rollout(
        env,
        explorer,
        seeds,
        state_layout=state_layout,
        policy_seed=0,
        draw=_draw(policy, indices, iteration),
    ):
        rows = [explorer.calls[chunk.call] for chunk in episode.chunks]
        slot = episode.env_index
        played.append(
            Played(
                index=indices[episode.index],
                seed=episode.seed,
                success=episode.outcome == "success",
                length=episode.length,
                rewards=np.array([chunk.reward for chunk in episode.chunks]),
                subtasks=tuple(chunk.subtasks for chunk in episode.chunks),
                arrays={name: np.stack([row[name][slot] for row in rows]) for name in rows[0]},
            )
        )
    return Rollout(played, len(explorer.calls), time.perf_counter() - began, explorer.seconds)


def _draw(policy: FlowActorCritic, indices: Sequence[int], iteration: int) -> Draw:
    def draw(running: Sequence[Episode | None]) -> Draws:
        # An empty slot: any randomness will do.
        keys = [(indices[episode.index], episode.calls) if episode else (0, 0) for episode in running]
        return exploration_draws(policy, [(STREAM, iteration, *key) for key in keys])

    return draw
