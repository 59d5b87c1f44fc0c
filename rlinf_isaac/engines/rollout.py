"""Policy x vector environment -> episodes.

Reproducible by construction: seed k of the list always runs in slot ``k % num_envs``, the policy always sees a full
batch, the noise of every call is a function of (policy seed, episode seed, call index), and a slot's result does not
depend on what the other slots do. So an episode's row is the same in a sweep, alone, or after a resume.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from rlinf_isaac.envs.stack_cube.contract import policy_images, policy_state
from rlinf_isaac.envs.stack_cube.vector import StackCubeEnv
from rlinf_isaac.ground.events import EpisodeRow, Outcome
from rlinf_isaac.pi0.policy import episode_noise


class Policy(Protocol):
    """What a rollout needs of a policy."""

    def act(
        self, images: Mapping[str, np.ndarray], states: np.ndarray, prompts: Sequence[str], noise: Any
    ) -> np.ndarray:
        """(N, chunk, 7) float32 actions for N observations. `noise` is all the randomness there is."""
        ...

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(H, A) of the noise of one observation."""
        ...


class FrameSink(Protocol):
    """Where the frames of one episode go."""

    def append(self, frame: np.ndarray) -> None:
        """Add a (h, w, 3) uint8 frame."""
        ...


class Chunk(NamedTuple):
    """What came of one action chunk of an episode.

    Attributes:
        call: which policy call of the rollout gave it, counted from 0; its row of that batch is the episode's slot.
        reward: sum over its control steps.
        subtasks: flags that were reached in it.
    """

    call: int
    reward: float
    subtasks: tuple[str, ...]


@dataclass
class Episode:
    """An episode under way in a slot, and its result once `outcome` is set. `index` is its place in the seeds."""

    seed: int
    env_index: int
    index: int
    sink: FrameSink | None = None
    calls: int = 0
    length: int = 0
    episode_return: float = 0.0
    subtasks: dict[str, bool] = field(default_factory=dict)
    outcome: Outcome | None = None
    chunks: list[Chunk] = field(default_factory=list)

    def row(self, step: int, checkpoint: str, policy_seed: int) -> EpisodeRow:
        """The result as an evaluation records it, for the checkpoint of `step` with that digest."""
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
        )


Draw = Callable[[Sequence[Episode | None]], Any]
"""Gives a policy call its randomness, for the episodes in the slots (None: an empty slot, any will do)."""


def rollout(
    env: StackCubeEnv,
    policy: Policy,
    seeds: Sequence[int],
    *,
    state_layout: str,
    policy_seed: int,
    finished: Collection[int] = (),
    open_sink: Callable[[int], FrameSink | None] = lambda seed: None,
    video_size: int = 256,
    draw: Draw | None = None,
) -> Iterator[Episode]:
    """Run one episode per seed and yield each as it ends.

    Args:
        env: a vector environment with the stack-cube contract, `chunk_step`, `observe` and `render_frame`.
        policy: acts on the whole batch at once.
        seeds: reset seeds; their order fixes the slots.
        state_layout: which state the policy was trained on (`contract.policy_state`).
        policy_seed: seed of the flow-matching noise.
        finished: seeds whose rows exist already; they are skipped without moving the others to other slots.
        open_sink: gives the sink of an episode's frames (first observation, every control step, terminal one).
        video_size: height in pixels of those frames.
        draw: what the policy is given as noise, when it is not `episode_noise` of `policy_seed`.
    """
    slots, draw = env.num_envs, draw or _episode_noise(policy, policy_seed)
    order = list(enumerate(seeds))
    waiting = [[each for each in order[slot::slots] if each[1] not in finished] for slot in range(slots)]
    running: list[Episode | None] = [None] * slots
    prompts = [env.identity.prompt] * slots
    observation: dict[str, Any] | None = None
    calls = 0

    def on_frame(slot: int, _: int) -> None:
        episode = running[slot]
        if episode is not None and episode.sink is not None:
            episode.sink.append(env.render_frame(slot, video_size))

    while True:
        # An empty slot takes the next of its own seeds, whatever the other slots do.
        begin = [slot for slot in range(slots) if running[slot] is None and waiting[slot]]
        for slot in begin:
            index, seed = waiting[slot].pop(0)
            running[slot] = Episode(seed, slot, index, open_sink(seed))
        active = np.array([episode is not None for episode in running])
        if not active.any():
            return
        if begin:
            observation = reset_slots(env, running, begin, everything=observation is None)
            for slot in begin:
                on_frame(slot, 0)
        assert observation is not None

        # One policy call for all slots: the batch always has the same size, so that no row depends on who else plays.
        actions = policy.act(
            policy_images(observation["policy"]),
            policy_state(observation["policy"], state_layout),
            prompts,
            draw(running),
        )
        # The environment plays the chunk's actions, and a slot stops where its episode ends.
        step = env.chunk_step(actions, active, on_frame)
        observation = step.observation
        # Rewards and flags go to the episodes. What has ended makes room.
        for slot in np.flatnonzero(active).tolist():
            episode = running[slot]
            assert episode is not None
            advance(episode, step, slot, calls)
            if episode.outcome is not None:
                running[slot] = None
                yield episode
        calls += 1


def reset_slots(
    env: StackCubeEnv, running: Sequence[Episode | None], begin: Sequence[int], *, everything: bool
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


def advance(episode: Episode, step: Any, slot: int, call: int) -> None:
    """Add to an episode what came of one action chunk (`ChunkStep`) in its slot; sets the outcome if it ended."""
    steps = int(step.steps[slot])
    episode.calls += 1
    episode.length += steps
    reward = float(step.rewards[slot, :steps].sum())
    episode.episode_return += reward
    subtasks = tuple(name for name, reached in step.subtasks.items() if reached[slot])
    episode.chunks.append(Chunk(call, reward, subtasks))
    for name, reached in step.subtasks.items():
        episode.subtasks[name] = episode.subtasks.get(name, False) or bool(reached[slot])
    if step.success[slot]:
        episode.outcome = "success"
    elif step.dropped[slot]:
        episode.outcome = "drop"
    elif step.time_out[slot]:
        episode.outcome = "timeout"
