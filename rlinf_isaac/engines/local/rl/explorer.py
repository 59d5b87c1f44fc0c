"""Plays training episodes with exploration noise and keeps what the update needs of every policy call."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch

from rlinf_isaac.engines.exploration import Sampler, exploration_draws, robot_chunk
from rlinf_isaac.engines.local.rl.buffer import RolloutBuffer
from rlinf_isaac.engines.local.rl.experience import Played
from rlinf_isaac.engines.rollout import Clock, Draw, Episode, rollout
from rlinf_isaac.envs.lanes import Lanes
from rlinf_isaac.envs.vector import TaskEnv
from rlinf_isaac.pi0.flow_policy import Draws, FlowActorCritic
from rlinf_isaac.pi0.policy import Prepared, Processor

STREAM = 4
"""Part of the seed; makes these random numbers independent of those for other purposes under the same `rl.seed`."""


class CallDraws(NamedTuple):
    """The randomness of a policy call, and in which of its slots (N,) an episode is running."""

    draws: Draws
    running: np.ndarray


class Explorer:
    """A `rollout.Policy` that samples from a `FlowActorCritic`.

    Args:
        policy: the policy.
        processor: its pre- and post-processing.
        buffer: keeps the calls of the present rollout.
        sampler: how to sample; it holds what it derives from the weights until `refresh`.

    Attributes:
        calls: for each policy call, the buffer's row of every slot.
        seconds: time spent in the policy.
    """

    def __init__(self, policy: FlowActorCritic, processor: Processor, buffer: RolloutBuffer, sampler: Sampler) -> None:
        self.policy, self.processor, self.buffer, self.sampler = policy, processor, buffer, sampler
        self.calls: list[np.ndarray] = []
        self.seconds = 0.0

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape (H, A) of the flow: action horizon and action dims of the model."""
        return self.policy.model.config.action_horizon, self.policy.model.config.action_dim

    def begin(self) -> None:
        """Forget the calls of earlier rollouts, and sample with the present weights from now on."""
        self.calls, self.seconds = [], 0.0
        self.sampler.refresh()

    def act(
        self, images: Mapping[str, np.ndarray], states: np.ndarray, prompts: Sequence[str], noise: CallDraws
    ) -> np.ndarray:
        """(N, chunk, A) float32 actions for N observations.

        Raises:
            TrainingDiverged: an action is not finite.
        """
        return self.act_on(self.prepare(images, states, prompts), noise)

    def prepare(self, images: Mapping[str, np.ndarray], states: np.ndarray, prompts: Sequence[str]) -> Prepared:
        """What of `act` needs no device: for a GPU, the observation is then in pinned memory. Thread-safe."""
        observation = self.processor.observation(images, states, prompts)
        if self.buffer.device.type == "cuda":
            with torch.cuda.device(self.buffer.device):  # a thread begins on the first device
                observation = observation.seen().pinned()
        return Prepared(observation, states)

    def act_on(self, prepared: Prepared, noise: CallDraws) -> np.ndarray:
        """`act` on what `prepare` has returned."""
        began = time.perf_counter()
        explored = self.sampler(prepared.observation, noise.draws)
        self.calls.append(self.buffer.write(prepared.observation, explored, noise.running))
        chunk = robot_chunk(self.policy, self.processor, explored.actions, prepared.states)
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
    env: TaskEnv | Lanes, explorer: Explorer, seeds: Sequence[int], indices: Sequence[int], *, iteration: int
) -> Generator[int, None, Rollout]:
    """Play one training episode per seed; yields the number of episodes that have ended.

    The noise is a function of (rl.seed, iteration, index, call).

    Args:
        env: vector environment, or several that play in turn.
        explorer: the policy that plays.
        seeds: reset seeds.
        indices: for each seed, the index of its episode in the iteration.
        iteration: iteration of the training, counted from 1.
    """
    began, clock = time.perf_counter(), Clock()
    explorer.begin()
    played = []
    draw = _draw(explorer.policy, indices, iteration)
    with closing(rollout(env, explorer, seeds, policy_seed=0, draw=draw, clock=clock)) as episodes:
        for episode in episodes:
            played.append(
                Played(
                    index=indices[episode.index],
                    seed=episode.seed,
                    prompt=env.task.prompt(episode.seed),
                    success=episode.outcome == "success",
                    length=episode.length,
                    rewards=np.array([chunk.reward for chunk in episode.chunks]),
                    subtasks=tuple(chunk.subtasks for chunk in episode.chunks),
                    rows=np.array([explorer.calls[chunk.call][chunk.row] for chunk in episode.chunks]),
                )
            )
            yield len(played)
    seconds = time.perf_counter() - began
    return Rollout(played, len(explorer.calls), seconds, explorer.seconds, clock.waited)


def _draw(policy: FlowActorCritic, indices: Sequence[int], iteration: int) -> Draw:
    def draw(running: Sequence[Episode | None]) -> CallDraws:
        # An empty slot: any randomness will do.
        keys = [(indices[episode.index], episode.calls) if episode else (0, 0) for episode in running]
        draws = exploration_draws(policy, [(STREAM, iteration, *key) for key in keys])
        return CallDraws(draws, np.array([episode is not None for episode in running]))

    return draw
