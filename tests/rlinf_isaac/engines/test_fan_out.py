"""Every item is carried out once and whole, whatever lanes do; how long a lane takes decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlinf_isaac.engines.fan_out import fan_out
from rlinf_isaac.ground.errors import EngineFailed, InvalidJob
from rlinf_isaac.ground.events import Metrics, Progress


def say(item: int, count: int = 3) -> Iterator[Metrics]:
    for step in range(count):
        yield Metrics(step, {"item": item})


def steps(events, item: int) -> list[int]:
    return [event.step for event in events if isinstance(event, Metrics) and event.values["item"] == item]


def breaks_after(count: int, error: Exception):
    """A lane that fails with its item number `count`."""
    begun = []

    def lane(item: int) -> Iterator[Metrics]:
        begun.append(item)
        yield from say(item, 2)
        if len(begun) > count:
            raise error
        yield Metrics(2, {"item": item})

    return lane


@given(items=st.integers(0, 12), lanes=st.integers(1, 4), broken=st.integers(0, 3), after=st.integers(0, 3))
def test_what_is_left_of_broken_lanes_is_carried_out(items, lanes, broken, after):
    broken = min(broken, lanes - 1)
    # A lane can break with one item each; the first ones break, the last one never does.
    bad = [breaks_after(after, EngineFailed("gone")) for _ in range(broken)]
    with ThreadPoolExecutor(lanes) as pool:
        try:
            events = list(fan_out(pool, [*bad, *[say] * (lanes - broken)], range(items)))
        except EngineFailed:  # two of them met over the same item
            assert broken >= 2
            return
    for item in range(items):
        assert steps(events, item)[-3:] == [0, 1, 2]
        assert len(steps(events, item)) in (3, 5)


def test_lanes_work_at_the_same_time():
    met = [Signal(), Signal()]

    def lane(item: int) -> Iterator[Progress]:
        met[item].set()
        assert met[1 - item].wait(60)
        yield Progress("x", item, 2)

    with ThreadPoolExecutor(2) as pool:
        events = list(fan_out(pool, [lane, lane], [0, 1]))
    assert {event.done for event in events} == {0, 1}


def test_a_lane_that_is_free_takes_what_a_broken_one_leaves():
    done = Signal()

    def good(item: int) -> Iterator[Metrics]:
        yield from say(item)
        done.set()

    def bad(item: int) -> Iterator[Metrics]:
        assert done.wait(60)  # by now the good one has nothing to do
        raise EngineFailed("gone")
        yield

    with ThreadPoolExecutor(2) as pool:
        events = list(fan_out(pool, [good, bad], [0, 1]))
    assert steps(events, 1) == [0, 1, 2]


def test_an_item_that_fails_twice_is_at_fault():
    def lane(item: int) -> Iterator[Metrics]:
        if item == 1:
            raise EngineFailed("damaged")
        yield from say(item)

    with ThreadPoolExecutor(3) as pool, pytest.raises(EngineFailed, match="damaged"):
        list(fan_out(pool, [lane] * 3, [0, 1, 2]))


def test_the_last_lane_says_why_it_failed():
    lane = breaks_after(0, EngineFailed("gone"))
    with ThreadPoolExecutor(1) as pool, pytest.raises(EngineFailed, match="gone"):
        list(fan_out(pool, [lane], [0, 1]))


def test_another_error_is_not_tried_again():
    lane = breaks_after(0, InvalidJob.of("code", "cause", "cure"))
    with ThreadPoolExecutor(2) as pool, pytest.raises(InvalidJob):
        list(fan_out(pool, [lane, lane], [0]))
