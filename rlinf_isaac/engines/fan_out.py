"""Items side by side on several lanes, as one stream of events; what a lane that fails has left goes to another."""

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
"""Carries out one item at a time. One that raises EngineFailed is not used again."""

TRIES = 2
"""An item that two lanes failed with is not tried on a third: it is the item's fault."""


@dataclass(frozen=True)
class _Ended(Generic[Item]):
    lane: Lane[Item]
    number: int
    error: BaseException | None


def fan_out(pool: Executor, lanes: Sequence[Lane[Item]], items: Sequence[Item]) -> Iterator[Event]:
    """The events of all items, each carried out by the next lane that is free; a lane's come in its order.

    An item whose lane failed is begun again on another, which announces what is durable already once more. Whoever
    closes this early has to end the lanes, and then the pool.

    Args:
        pool: with a thread per lane.
        lanes: what carries items out.
        items: in the order in which they are begun.

    Raises:
        EngineFailed: the last lane failed, or an item failed on `TRIES` of them.
        Exception: whatever else a lane raises.
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
        logger.warning("%s; its work goes on elsewhere, on %d lanes", event.error, len(free) + busy)
        todo.appendleft(event.number)
