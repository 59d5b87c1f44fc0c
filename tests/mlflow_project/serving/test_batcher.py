from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from mlflow_project.serving.batcher import Batcher
from mlflow_project.serving.observation import Request


def request(number: int) -> Request:
    return Request({}, np.full(1, number), "", (0, 0, number))


class Doubler:
    """Answers with twice the state. Fails for a batch that holds a negative one."""

    def __init__(self):
        self.batches, self.gate = [], threading.Event()
        self.gate.set()

    def __call__(self, requests):
        self.gate.wait(60)
        states = [int(each.state[0]) for each in requests]
        self.batches.append(states)
        if min(states) < 0:
            raise ValueError(f"{min(states)} is negative")
        return np.array([[2 * state] for state in states])


def ask_all(infer, numbers, *, max_batch=4, wait_s=60.0, askers=None, cancel=()):
    """Ask for all numbers at once; their answers or exceptions."""

    async def main():
        batcher = Batcher(infer, max_batch=max_batch, wait_s=wait_s, askers=lambda: askers or len(numbers))
        running = asyncio.create_task(batcher.run())
        tasks = [asyncio.create_task(batcher.ask(request(number))) for number in numbers]
        await asyncio.sleep(0)  # all of them have asked
        for index in cancel:
            tasks[index].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        running.cancel()
        return answers

    return asyncio.run(main())


def test_who_asks_at_once_shares_a_batch_in_the_order_of_asking():
    infer = Doubler()
    answers = ask_all(infer, [5, 3, 4])
    assert infer.batches == [[5, 3, 4]]
    assert [answer.actions.tolist() for answer in answers] == [[10], [6], [8]]
    assert {answer.batch for answer in answers} == {3}


def test_a_batch_has_a_limit():
    infer = Doubler()
    assert len(ask_all(infer, range(10), wait_s=0)) == 10
    assert infer.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_waiting_for_others_has_a_limit():
    infer = Doubler()
    (answer,) = ask_all(infer, [1], askers=3, wait_s=0.01)
    assert infer.batches == [[1]]
    assert answer.queue_s >= 0.01


def test_an_error_reaches_only_whom_it_concerns():
    infer = Doubler()
    good, bad, other = ask_all(infer, [1, -2, 3])
    assert infer.batches == [[1, -2, 3], [1], [-2], [3]]
    assert isinstance(bad, ValueError)
    assert [good.actions.tolist(), other.actions.tolist()] == [[2], [6]]


def test_those_who_left_are_not_answered():
    infer = Doubler()
    answers = ask_all(infer, [1, 2, 3], cancel=[1])
    assert infer.batches == [[1, 3]]
    assert isinstance(answers[1], asyncio.CancelledError)


@pytest.mark.parametrize("count", [1, 50])
def test_everyone_is_answered(count):
    answers = ask_all(Doubler(), range(count), wait_s=0.001, askers=100)
    assert [int(answer.actions[0]) for answer in answers] == [2 * number for number in range(count)]
