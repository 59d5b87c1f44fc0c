"""Runs a policy in a vector environment and yields the episodes.

The episodes are reproducible by construction: seed number k always runs in slot ``k % num_envs``, the policy always
gets a full batch, the noise of every call is a function of (policy seed, episode seed, call index), and a slot does not
depend on the other slots. So the row of an episode is the same in a sweep, alone, or after a resume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from rlinf_isaac.envs.vector import ChunkStep, TaskEnv
from rlinf_isaac.ground.events import EpisodeRow
from rlinf_isaac.pi0.policy import episode_noise


class Policy(Protocol):
    """The interface of a policy for a rollout."""

    def act(
        self, images: Mapping[str, np.ndarray], states: np.ndarray, prompts: Sequence[str], noise: Any
    ) -> np.ndarray:
        """(N, chunk, A) float32 actions for N observations. The result is a function of the arguments and `noise`."""
        ...

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape (H, A) of the noise for one observation: action horizon and action dims."""
        ...


class FrameSink(Protocol):
    """Receives the frames of one episode."""

    def append(self, frame: np.ndarray) -> None:
        """Add a (h, w, 3) uint8 frame."""
        ...


class Chunk(NamedTuple):
    """Result of one action chunk of an episode.

    Attributes:
        call: index of the policy call that returned the chunk, counted from 0; its row in the batch is the episode's
            slot.
        reward: sum of the rewards over the chunk's control steps.
        subtasks: subtask flags that were reached during the chunk.
    """

    call: int
    reward: float
    subtasks: tuple[str, ...]


@dataclass
class Episode:
    """An episode in a slot; it has ended if `outcome` is set.

    Attributes:
        seed: reset seed.
        env_index: slot of the environment.
        index: index of the seed in the rollout's list.
        sink: receives the frames, or None.
        calls: number of policy calls so far.
        length: number of control steps so far.
        episode_return: sum of the rewards so far.
        subtasks: subtask flag -> whether it was reached.
        extras: further numbers of the episode after its last control step.
        outcome: how the episode ended; None while it runs.
        chunks: results of the action chunks.
    """

    seed: int
    env_index: int
    index: int
    sink: FrameSink | None = None
    calls: int = 0
    length: int = 0
    episode_return: float = 0.0
    subtasks: dict[str, bool] = field(default_factory=dict)
    extras: dict[str, float] = field(default_factory=dict)
    outcome: str | None = None
    chunks: list[Chunk] = field(default_factory=list)

    def row(self, step: int, checkpoint: str, policy_seed: int) -> EpisodeRow:
        """The evaluation row of this finished episode, for the checkpoint of `step` with the digest `checkpoint`."""
        assert self.outcome is not None
        return EpisodeRow(
            checkpoint_step=step,
            checkpoint=checkpoint,
            seed=self.seed,
            env_index=self.env_index,
            success=self.outcome == "success",
            outcome=self.outcome,
            length=self.length,
            episode_return=self.episode_return,
            policy_seed=policy_seed,
            subtasks=dict(self.subtasks),
            extras=dict(self.extras),
        )


Draw = Callable[[Sequence[Episode | None]], Any]
"""Returns the noise of a policy call for the episodes in the slots; a slot with None is empty, and its noise is
ignored."""


def rollout(
    env: TaskEnv,
    policy: Policy,
    seeds: Sequence[int],
    *,
    policy_seed: int,
    finished: Collection[int] = (),
    open_sink: Callable[[int], FrameSink | None] = lambda seed: None,
    video_size: int = 256,
    draw: Draw | None = None,
) -> Iterator[Episode]:
    """Run one episode per seed and yield each episode when it ends.

    Args:
        env: vector environment.
        policy: the policy, called with the observations of all slots.
        seeds: reset seeds; their order determines the slots.
        policy_seed: seed of the flow-matching noise.
        finished: seeds that are skipped because their rows exist; the other seeds keep their slots.
        open_sink: returns the sink for the frames of an episode: the first observation, then one frame after every
            control step; None for an episode without a video.
        video_size: height of these frames in pixels.
        draw: returns the noise of a policy call; by default `episode_noise` with `policy_seed`.
    """
    slots, draw = env.num_envs, draw or _episode_noise(policy, policy_seed)
    order = list(enumerate(seeds))
    waiting = [[each for each in order[slot::slots] if each[1] not in finished] for slot in range(slots)]
    running: list[Episode | None] = [None] * slots
    observation: dict[str, Any] | None = None
    calls = 0

    def on_frame(slot: int, _: int) -> None:
        episode = running[slot]
        if episode is not None and episode.sink is not None:
            episode.sink.append(env.render_frame(slot, video_size))

    while True:
        # Start the next episode in every empty slot. Each slot has its own list of seeds. In an environment whose rows
        # begin together, empty slots wait for the others.
        begin = [slot for slot in range(slots) if running[slot] is None and waiting[slot]]
        if env.together and any(running):
            begin = []
        for slot in begin:
            index, seed = waiting[slot].pop(0)
            running[slot] = Episode(seed, slot, index, open_sink(seed))
        active = np.array([episode is not None for episode in running])
        if not active.any():
            return
        # Reset the environments of the new episodes; the others keep their state.
        if begin:
            observation = reset_slots(env, running, begin, everything=observation is None or env.together)
            for slot in begin:
                on_frame(slot, 0)
        assert observation is not None

        # Sample one action chunk per slot, in one policy call. The batch always has the same size, so that rounding in
        # one row does not depend on the number of running episodes.
        seen = env.policy_input(observation)
        actions = policy.act(seen.images, seen.states, env.prompts(), draw(running))
        # Step the environment through the actions of the chunk; a slot stops when its episode ends.
        step = env.chunk_step(actions, active, on_frame)
        observation = step.observation
        # Add rewards and subtask flags to the episodes, and free the slots of those that have ended.
        for slot in np.flatnonzero(active).tolist():
            episode = running[slot]
            assert episode is not None
            advance(episode, step, slot, calls)
            if episode.outcome is not None:
                running[slot] = None
                yield episode
        calls += 1


def reset_slots(
    env: TaskEnv, running: Sequence[Episode | None], begin: Sequence[int], *, everything: bool
) -> dict[str, Any]:
    """Reset the slots in which an episode begins; returns the observation of all slots.

    Args:
        env: whose slots they are.
        running: the episode in every slot.
        begin: the slots to reset.
        everything: this is the first reset. It covers every slot: one without an episode, which then takes a seed of
            the others, still feeds its row of the policy's batch.
    """
    episode_seeds = [episode.seed if episode else None for episode in running]
    any_seed = next((seed for seed in episode_seeds if seed is not None), 0)
    mask = np.zeros(env.num_envs, dtype=bool)
    mask[list(begin)] = True
    if everything:
        mask[:] = True
        episode_seeds = [any_seed if seed is None else seed for seed in episode_seeds]
    seeds = [seed if chosen else None for seed, chosen in zip(episode_seeds, mask, strict=True)]
    return env.reset(seed=seeds, options={"reset_mask": mask})[0]


def _episode_noise(policy: Policy, policy_seed: int) -> Draw:
    def draw(running: Sequence[Episode | None]) -> np.ndarray:
        keys = [(episode.seed, episode.calls) if episode else (0, 0) for episode in running]
        return np.stack([episode_noise(policy_seed, seed, call, policy.noise_shape) for seed, call in keys])

    return draw


def advance(episode: Episode, step: ChunkStep, slot: int, call: int) -> None:
    """Add the result of one action chunk in a slot to its episode; sets the outcome if it has ended."""
    steps = int(step.steps[slot])
    episode.calls += 1
    episode.length += steps
    reward = float(step.rewards[slot, :steps].sum())
    episode.episode_return += reward
    subtasks = tuple(name for name, reached in step.subtasks.items() if reached[slot])
    episode.chunks.append(Chunk(call, reward, subtasks))
    for name, reached in step.subtasks.items():
        episode.subtasks[name] = episode.subtasks.get(name, False) or bool(reached[slot])
    # What another episode's environment gives, and this one's not, is no number of this episode.
    extras = {name: float(values[slot]) for name, values in step.extras.items()}
    episode.extras.update({name: value for name, value in extras.items() if not math.isnan(value)})
    episode.outcome = step.outcome(slot)
