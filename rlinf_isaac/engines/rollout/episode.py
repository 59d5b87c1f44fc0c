"""An episode of a rollout, and what its action chunks add to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from rlinf_isaac.envs.vector import ChunkStep
from rlinf_isaac.ground.events import EpisodeRow


class FrameSink(Protocol):
    """Receives the frames of one episode."""

    def append(self, frame: np.ndarray) -> None:
        """Add a (h, w, 3) uint8 frame."""
        ...


@runtime_checkable
class ChunkSink(FrameSink, Protocol):
    """Receives the numbers of one episode, too."""

    def chunk(self, state: np.ndarray, predicted: np.ndarray, executed: np.ndarray) -> None:
        """Add an action chunk: the state (D,) that the policy saw, all actions (H, A) that it has predicted, and the
        first of them (T, A), which were executed; in robot units."""
        ...

    def ended(self, state: np.ndarray) -> None:
        """The episode has ended in this state (D,)."""
        ...


class Chunk(NamedTuple):
    """Result of one action chunk of an episode.

    Attributes:
        call: index of the policy call that returned the chunk, counted from 0.
        row: its row in the batch of that call.
        reward: sum of the rewards over the chunk's control steps.
        subtasks: subtask flags that were reached during the chunk.
    """

    call: int
    row: int
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


def advance(episode: Episode, step: ChunkStep, row: int, call: int) -> None:
    """Add the result of one action chunk in a row to its episode; sets the outcome if it has ended."""
    steps = int(step.steps[row])
    episode.calls += 1
    episode.length += steps
    reward = float(step.rewards[row, :steps].sum())
    episode.episode_return += reward
    subtasks = tuple(name for name, reached in step.subtasks.items() if reached[row])
    episode.chunks.append(Chunk(call, row, reward, subtasks))
    for name, reached in step.subtasks.items():
        episode.subtasks[name] = episode.subtasks.get(name, False) or bool(reached[row])
    # What another episode's environment gives, and this one's not, is no number of this episode.
    extras = {name: float(values[row]) for name, values in step.extras.items()}
    episode.extras.update({name: value for name, value in extras.items() if not math.isnan(value)})
    episode.outcome = step.outcome(row)
