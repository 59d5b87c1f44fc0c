"""Runs a policy in the lanes of an environment and yields the episodes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from rlinf_isaac.engines.rollout.episode import Episode, FrameSink
from rlinf_isaac.engines.rollout.lane import Draw, Lane, Policy
from rlinf_isaac.envs.lanes import Lanes
from rlinf_isaac.envs.vector import TaskEnv
from rlinf_isaac.pi0.policy import episode_noise

T = TypeVar("T")
Begin = Callable[[Callable[[], Any]], Callable[[], Any]]
"""Begins a piece of work of a lane; what it returns waits for the result, or raises what the work has raised."""


@dataclass
class Clock:
    """Measures rollouts.

    Attributes:
        wall: seconds from their beginning to their end.
        waited: seconds of these in which the policy waited: for steps and resets of environments, or for an observation
            to be prepared.
    """

    wall: float = 0.0
    waited: float = 0.0

    @property
    def wait_share(self) -> float:
        """The share of the time in which the policy waited; 0 if nothing was played."""
        return self.waited / self.wall if self.wall else 0.0

    def wait(self, result: Callable[[], T]) -> T:
        """The result, for which the policy waits."""
        began = time.perf_counter()
        try:
            return result()
        finally:
            self.waited += time.perf_counter() - began


def rollout(
    env: TaskEnv | Lanes,
    policy: Policy,
    seeds: Sequence[int],
    *,
    policy_seed: int,
    finished: Collection[int] = (),
    open_sink: Callable[[int], FrameSink | None] = lambda seed: None,
    video_size: int = 256,
    draw: Draw | None = None,
    clock: Clock | None = None,
) -> Generator[Episode]:
    """Run one episode per seed and yield each episode when it ends.

    With two lanes, the environments of one step while the policy samples for those of the other. The policy is called
    in this thread, for the lanes in strict turns; each lane has a thread of its own, which ends with this generator:
    who leaves it early closes it before what `open_sink` has opened.

    Args:
        env: vector environment, or several that play in turn.
        policy: the policy, called with the observations of all slots of a lane.
        seeds: reset seeds; their order determines the slots.
        policy_seed: seed of the flow-matching noise.
        finished: seeds that are skipped because their rows exist; the other seeds keep their slots.
        open_sink: returns the sink for the frames of an episode: the first observation, then one frame after every
            control step; None for an episode without a video. It is called in the thread of a lane, as the sink is.
        video_size: height of these frames in pixels.
        draw: returns the noise of a policy call; by default `episode_noise` with `policy_seed`.
        clock: measures how long the policy waits.

    Raises:
        Exception: whatever a lane has raised.
    """
    envs = env.envs if isinstance(env, Lanes) else [env]
    draw, clock = draw or _episode_noise(policy, policy_seed), clock or Clock()
    began = time.perf_counter()
    with ExitStack() as opened:
        opened.callback(lambda: setattr(clock, "wall", clock.wall + time.perf_counter() - began))
        lanes = [
            Lane(each, first, waiting, policy, draw, open_sink, video_size)
            for each, first, waiting in _shares(envs, seeds, finished)
        ]
        yield from _play([(lane, _beginning(opened, len(lanes))) for lane in lanes], clock)


def _play(lanes: Sequence[tuple[Lane, Begin]], clock: Clock) -> Iterator[Episode]:
    turns: deque[tuple[Lane, Begin, Callable[[], list[Episode]], Callable[[], Any]]] = deque()
    for lane, begin in lanes:
        turns.append((lane, begin, list, begin(lane.next_call)))
    calls = 0
    while turns:
        # The lane whose turn it is: wait until its environments have stepped, and announce the episodes that ended.
        lane, begin, stepped, ready = turns.popleft()
        yield from clock.wait(stepped)
        # Wait until its next observations are there. A lane that has none has played all of its episodes.
        call = clock.wait(ready)
        if call is None:
            continue
        # Sample one action chunk per slot, in one policy call; the other lane steps or waits for its turn meanwhile.
        actions = lane.act(call)
        # Let the lane step through the actions and prepare its next observations, and turn to the other one.
        stepped = begin(_Step(lane, actions, calls))
        turns.append((lane, begin, stepped, begin(lane.next_call)))
        calls += 1


@dataclass(frozen=True)
class _Step:
    lane: Lane
    actions: np.ndarray
    call: int

    def __call__(self) -> list[Episode]:
        return self.lane.step(self.actions, self.call)


def _beginning(opened: ExitStack, lanes: int) -> Begin:
    """How a lane's work begins: at once in a thread of its own; or, where there is no other lane, when it is waited
    for, in the thread that waits."""
    if lanes == 1:
        return lambda work: work
    thread = ThreadPoolExecutor(1, thread_name_prefix="lane")
    # What has begun is waited for, what waits in the queue is dropped: after that nothing uses environments or sinks.
    opened.callback(thread.shutdown, wait=True, cancel_futures=True)
    return lambda work: thread.submit(work).result


def _shares(
    envs: Sequence[TaskEnv], seeds: Sequence[int], finished: Collection[int]
) -> Iterator[tuple[TaskEnv, int, list[list[tuple[int, int]]]]]:
    """For each lane its environments, its first slot, and index and seed of the episodes of each of its slots. Seed
    number k belongs to slot k % N of all N."""
    slots, order = sum(each.num_envs for each in envs), list(enumerate(seeds))
    waiting = [[each for each in order[slot::slots] if each[1] not in finished] for slot in range(slots)]
    first = 0
    for each in envs:
        yield each, first, waiting[first : first + each.num_envs]
        first += each.num_envs


def _episode_noise(policy: Policy, policy_seed: int) -> Draw:
    def draw(running: Sequence[Episode | None]) -> np.ndarray:
        keys = [(episode.seed, episode.calls) if episode else (0, 0) for episode in running]
        return np.stack([episode_noise(policy_seed, seed, call, policy.noise_shape) for seed, call in keys])

    return draw
