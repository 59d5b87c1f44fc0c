"""Runs items on several lanes in parallel and merges their events. If a lane fails, its item moves to another lane."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from rlinf_isaac.ground.errors import EngineFailed
from rlinf_isaac.ground.events import Event

logger = logging.getLogger("rlinf_isaac")

Item = TypeVar("Item")
Lane = Callable[[Item], Iterator[Event]]
"""Runs one item at a time and yields its events. A lane that raises EngineFailed is not used again."""

TRIES = 2
"""An item on which so many lanes have failed is not tried again, because the item is the likely cause."""


@dataclass(frozen=True)
class _Ended(Generic[Item]):
    lane: Lane[Item]
    number: int
    error: BaseException | None


def fan_out(pool: Executor, lanes: Sequence[Lane[Item]], items: Sequence[Item]) -> Iterator[Event]:
    """Run each item on the next free lane and yield the events of all lanes; the events of a lane stay in order.

    If a lane fails, its item is started again on another lane, which yields the events of durable results again. A
    caller that closes this generator early has to stop the lanes first, and then the pool.

    Args:
        pool: executor with one thread per lane.
        lanes: the lanes.
        items: the items, in the order in which they are started.

    Raises:
        EngineFailed: the last lane failed, or an item failed on `TRIES` lanes.
        Exception: any other exception of a lane.
    """
    todo, free, busy = deque(range(len(items))), list(lanes), 0
    failures = [0] * len(items)
    events: SimpleQueue[Event | _Ended[Item]] = SimpleQueue()

    def carry_out(lane: Lane[Item], number: int) -> None:
        error = None
        try:
            for event in lane(items[number]):
                events.put(event)
        except BaseException as failure:
            error = failure
        events.put(_Ended(lane, number, error))

    while todo or busy:
        while todo and free:
            pool.submit(carry_out, free.pop(0), todo.popleft())
            busy += 1
        event = events.get()
        if not isinstance(event, _Ended):
            yield event
            continue
        busy -= 1
        if event.error is None:
            free.append(event.lane)
            continue
        failures[event.number] += 1
        if not isinstance(event.error, EngineFailed) or not (free or busy) or failures[event.number] >= TRIES:
            raise event.error
        logger.warning("%s; its work moves to the other %d lanes", event.error, len(free) + busy)
        todo.appendleft(event.number)
