"""Batches requests that arrive at about the same time into one call of the model."""

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
    """Answer to one request.

    Attributes:
        actions: (chunk, 7) float32.
        queue_s: seconds in the queue.
        infer_s: seconds of the model call.
        batch: number of requests in that call.
    """

    actions: np.ndarray
    queue_s: float
    infer_s: float
    batch: int


class _Waiting(NamedTuple):
    request: Request
    answer: asyncio.Future[Answer]
    arrived: float


class Batcher:
    """Answers requests in the order of arrival, up to `max_batch` in one call of the model.

    The model runs in its own thread, so connections stay responsive, and one call follows the other. Requests that
    arrive during a call form the next batch. If the model is idle, a request waits up to `wait_s` for others, but not
    longer than until every connected client has sent one.

    Args:
        infer: requests -> one row of actions each. If it raises for a batch, it is called again for each request alone,
            so only the requests for which it raises fail.
        max_batch: most requests in one call.
        wait_s: longest time that a request waits for others, in seconds.
        askers: returns the number of connected clients, an upper bound of the pending requests.
    """

    def __init__(self, infer: Infer, *, max_batch: int, wait_s: float, askers: Callable[[], int]) -> None:
        self._infer, self._max_batch, self._wait_s, self._askers = infer, max_batch, wait_s, askers
        self._queue: deque[_Waiting] = deque()
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")

    async def ask(self, request: Request) -> Answer:
        """Wait for the answer to one request. Raises the exception that the model raises for it."""
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
        return [waiting for waiting in batch if not waiting.answer.done()]  # it is cancelled if the client has left

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
            if len(batch) > 1:  # call the model for each request alone, so that only the faulty one fails
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
