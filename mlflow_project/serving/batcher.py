"""Requests that arrive at about the same time share one call of the model."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from mlflow_project.serving.observation import Request

Infer = Callable[[Sequence[Request]], np.ndarray]


class Answer(NamedTuple):
    """The actions (chunk, 7) of one request, and what it took: seconds in the queue and in the model, rows shared."""

    actions: np.ndarray
    queue_s: float
    infer_s: float
    batch: int


class _Waiting(NamedTuple):
    request: Request
    answer: asyncio.Future[Answer]
    arrived: float


class Batcher:
    """First come, first served, up to `max_batch` at a time, one call of the model after another.

    The model runs in a thread of its own, so connections stay responsive. While it works, requests gather; when it is
    idle, a request waits up to `wait_s` for others, and not at all once everyone who could ask has asked.

    Args:
        infer: requests -> one row of actions each. One that raises spoils only the requests it raises for.
        max_batch: most requests in one call.
        wait_s: how long a request waits for others at most.
        askers: how many requests there can be at this moment.
    """

    def __init__(self, infer: Infer, *, max_batch: int, wait_s: float, askers: Callable[[], int]) -> None:
        self._infer, self._max_batch, self._wait_s, self._askers = infer, max_batch, wait_s, askers
        self._queue: deque[_Waiting] = deque()
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")

    async def ask(self, request: Request) -> Answer:
        """The answer to one request. Raises what the model raises for it."""
        waiting = _Waiting(request, asyncio.get_running_loop().create_future(), time.monotonic())
        self._queue.append(waiting)
        self._arrival.set()
        return await waiting.answer

    async def run(self) -> None:
        """Answer requests until cancelled."""
        try:
            while True:
                if batch := await self._gather():
                    await self._answer(batch)
        finally:
            self._thread.shutdown(wait=False)

    async def _gather(self) -> list[_Waiting]:
        while not self._queue:
            await self._next_arrival(None)
        deadline = self._queue[0].arrived + self._wait_s
        while len(self._queue) < min(self._max_batch, self._askers()):
            left = deadline - time.monotonic()
            if left <= 0 or not await self._next_arrival(left):
                break
        batch = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
        return [waiting for waiting in batch if not waiting.answer.done()]  # else its client has gone

    async def _next_arrival(self, timeout: float | None) -> bool:
        self._arrival.clear()
        try:
            await asyncio.wait_for(self._arrival.wait(), timeout)
        except TimeoutError:
            return False
        return True

    async def _answer(self, batch: list[_Waiting]) -> None:
        began = time.monotonic()
        try:
            actions = await self._call([waiting.request for waiting in batch])
        except Exception as error:
            if len(batch) > 1:  # find out whose fault it is
                for waiting in batch:
                    await self._answer([waiting])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        took = time.monotonic() - began
        for waiting, row in zip(batch, actions, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(Answer(row, began - waiting.arrived, took, len(batch)))

    async def _call(self, requests: Sequence[Request]) -> np.ndarray:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._infer, requests)
