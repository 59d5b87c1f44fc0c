"""A client for environments without ``openpi-client`` (which needs numpy < 2). Its calls are the same.

with PolicyClient("127.0.0.1", 8000) as policy:
    actions = policy.infer({"observation/image": image, "observation/wrist_image": wrist,
                            "observation/state": state, "prompt": prompt})["actions"]
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect

from mlflow_project.serving.codec import pack, unpack


class PolicyClient:
    """A connection to a policy server, OpenPI's or this project's.

    Attributes:
        metadata: the server's description of its policy.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8000, api_key: str | None = None) -> None:
        headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._open = ExitStack()
        self._connection = self._open.enter_context(
            connect(f"ws://{host}:{port}", compression=None, max_size=None, additional_headers=headers)
        )
        self.metadata: dict[str, Any] = unpack(self._receive())

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Actions (chunk, A) and timings for one observation.

        Raises:
            RuntimeError: the server refused the observation; the message gives the reason.
        """
        self._connection.send(pack(dict(observation)))
        return unpack(self._receive())

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _receive(self) -> bytes:
        message = self._connection.recv()
        if isinstance(message, str):
            raise RuntimeError(message)
        return message
