"""Observations for a policy, and a real server for it in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlflow_project.serving.client import PolicyClient
from mlflow_project.serving.policy import ServedPolicy
from mlflow_project.serving.server import Heard, Limits, PolicyServer


def observation(index: int, size: int = 64, dims: int = 23) -> dict[str, Any]:
    """One of many different observations, with its own noise."""
    random = np.random.default_rng(index)
    return {
        "observation/image": random.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "observation/wrist_image": random.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "observation/state": random.normal(0, 0.1, dims).astype(np.float32),
        "prompt": "Stack the red block on the blue block.",
        "noise_key": [0, 5000 + index, 3],
    }


def expected(policy: ServedPolicy, sent: dict[str, Any]) -> np.ndarray:
    """The actions for one observation, asked alone."""
    return policy.infer([policy.spec.parse(sent, (0, 0, 0))])[0]


@dataclass
class Running:
    """A server that runs in a thread of its own. `stop` may be called from this one."""

    port: int
    stop: Callable[[], None]
    thread: threading.Thread

    def client(self, **options: Any) -> PolicyClient:
        return PolicyClient("127.0.0.1", self.port, **options)


@contextmanager
def running(policy: Any, limits: Limits | None = None, heard: Heard | None = None) -> Iterator[Running]:
    started: list[Running] = []
    ready = threading.Event()

    async def main() -> None:
        server, loop = PolicyServer(policy, limits, heard), asyncio.get_running_loop()

        def listen(port: int) -> None:
            stop = lambda: loop.call_soon_threadsafe(server.stop)  # noqa: E731
            started.append(Running(port, stop, thread))
            ready.set()

        await server.run("127.0.0.1", 0, listen)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(60)
    try:
        yield started[0]
    finally:
        if thread.is_alive():
            started[0].stop()
        thread.join(60)
        assert not thread.is_alive()
