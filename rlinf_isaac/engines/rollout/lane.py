"""One lane of a rollout: some slots, which step together, and whose observations are one batch of the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from rlinf_isaac.engines.rollout.episode import ChunkSink, Episode, FrameSink, advance
from rlinf_isaac.envs.vector import TaskEnv


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


@runtime_checkable
class StagedPolicy(Policy, Protocol):
    """A policy whose `act` is `act_on` of what `prepare` returns. A rollout of several lanes prepares the observations
    of one lane in its thread, while the policy acts on those of another."""

    def prepare(self, images: Mapping[str, np.ndarray], states: np.ndarray, prompts: Sequence[str]) -> Any:
        """What can be done to N observations without the device. It is called by several threads at a time."""
        ...

    def act_on(self, prepared: Any, noise: Any) -> np.ndarray:
        """(N, chunk, A) float32 actions, as `act`."""
        ...


@runtime_checkable
class ForeseeingPolicy(Policy, Protocol):
    """A policy that predicts further than the actions that it gives."""

    def predicted(self) -> np.ndarray:
        """(N, H, A) float32: all that the last call has predicted, of which its actions are the beginning."""
        ...


Draw = Callable[[Sequence[Episode | None]], Any]
"""Returns the noise of a policy call for the episodes in the rows of its batch, of which one with None is empty, and
its noise ignored. It is called in the thread of a lane, and depends on nothing but these episodes."""


class Call(NamedTuple):
    """What the policy gets in a call.

    Attributes:
        observation: as `StagedPolicy.prepare` has returned it, or the first three arguments of `Policy.act`.
        noise: of all rows.
    """

    observation: Any
    noise: Any


class Lane:
    """Plays episodes in some of a rollout's slots. Its methods take turns with the policy calls: `next_call`, then
    `step` with the actions, then `next_call` again, until that returns None.

    Attributes:
        env: the environments of its slots.
        running: the episode in each of them.
    """

    def __init__(
        self,
        env: TaskEnv,
        first_slot: int,
        waiting: Sequence[Sequence[tuple[int, int]]],
        policy: Policy,
        draw: Draw,
        open_sink: Callable[[int], FrameSink | None],
        video_size: int,
    ) -> None:
        """
        Args:
            env: the environments.
            first_slot: slot of the first of them; the others follow.
            waiting: for each slot, index and seed of the episodes that it plays, one after the other.
            policy: acts on the observations.
            draw, open_sink, video_size: as of `rollout`.
        """
        self.env, self.running = env, _empty(env.num_envs)
        self._first_slot, self._waiting = first_slot, [list(each) for each in waiting]
        self._policy, self._staged = policy, policy if isinstance(policy, StagedPolicy) else None
        self._draw, self._open_sink, self._video_size = draw, open_sink, video_size
        self._observation: dict[str, Any] | None = None
        self._states = self._predicted = np.zeros(0, np.float32)
        self._failed = False

    def next_call(self) -> Call | None:
        """Begin episodes in the slots that are free, and return what the policy acts on next; None: all episodes have
        been played, or the last `step` has failed."""
        if self._failed:
            return None
        env = self.env
        # Start the next episode in every empty slot. Each slot has its own list of seeds. In an environment whose rows
        # begin together, empty slots wait for the others.
        begin = [row for row, waits in enumerate(self._waiting) if self.running[row] is None and waits]
        if env.together and any(self.running):
            begin = []
        for row in begin:
            index, seed = self._waiting[row].pop(0)
            self.running[row] = Episode(seed, self._first_slot + row, index, self._open_sink(seed))
        if not any(self.running):
            return None
        # Reset the environments of the new episodes; the others keep their state.
        if begin:
            everything = self._observation is None or env.together
            self._observation = reset_slots(env, self.running, begin, everything=everything)
            for row in begin:
                self._on_frame(row, 0)
        assert self._observation is not None
        # The batch always has the same size, so that rounding in one row does not depend on how many episodes run.
        seen = env.policy_input(self._observation)
        self._states = seen.states
        observation: Any = (seen.images, seen.states, env.prompts())
        if self._staged is not None:
            observation = self._staged.prepare(*observation)
        return Call(observation, self._draw(self.running))

    def act(self, call: Call) -> np.ndarray:
        """The policy's actions, (N, chunk, A)."""
        if self._staged is not None:
            actions = self._staged.act_on(call.observation, call.noise)
        else:
            images, states, prompts = call.observation
            actions = self._policy.act(images, states, prompts, call.noise)
        if any(episode is not None and isinstance(episode.sink, ChunkSink) for episode in self.running):
            self._predicted = self._policy.predicted() if isinstance(self._policy, ForeseeingPolicy) else actions
        return actions

    def step(self, actions: np.ndarray, call: int) -> list[Episode]:
        """Step the environments through the actions (N, chunk, A) of the call with this index; a slot stops when its
        episode ends. Returns the episodes that have ended, whose slots are then free."""
        self._failed = True
        active = np.array([episode is not None for episode in self.running])
        filmed = any(episode is not None and episode.sink is not None for episode in self.running)
        step = self.env.chunk_step(actions, active, self._on_frame if filmed else None)
        self._observation = step.observation
        ended = []
        for row, episode in enumerate(self.running):
            if episode is not None:
                advance(episode, step, row, call)
                if isinstance(episode.sink, ChunkSink):
                    episode.sink.chunk(self._states[row], self._predicted[row], actions[row, : step.steps[row]])
                    if episode.outcome is not None:
                        episode.sink.ended(self.env.policy_states(step.observation)[row])
                if episode.outcome is not None:
                    self.running[row] = None
                    ended.append(episode)
        self._failed = False
        return ended

    def _on_frame(self, row: int, _: int) -> None:
        episode = self.running[row]
        if episode is not None and episode.sink is not None:
            episode.sink.append(self.env.render_frame(row, self._video_size))


def _empty(count: int) -> list[Episode | None]:
    return [None] * count


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
