"""Delivers one notification to one address: a POST of JSON, or a command with JSON on its standard input."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from mlflow_project.notify.addresses import Address

TIMEOUT_S = 10.0
"""Seconds after which an address that has not answered is tried once more, or given up."""
PREFIX = "RLINF_ISAAC_EVENT_"
"""Beginning of the names of the variables that a command has in its environment, one for each field but the metrics."""


class NotDelivered(Exception):
    """An address did not take a notification. The message has no secret."""


def deliver(address: Address, fields: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> None:
    """Deliver `fields` (`News.as_dict`).

    Raises:
        NotDelivered: no answer in time, an error, or an exit code that is not 0.
    """
    body = json.dumps(fields, allow_nan=False).encode()
    if address.url is not None:
        _post(address.url, body, timeout_s)
    else:
        _run(address.command, body, fields, timeout_s)


def _post(url: str, body: bytes, timeout_s: float) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "rlinf-isaac"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=timeout_s) as answer:
            answer.read(1 << 16)
    except urllib.error.HTTPError as error:
        raise NotDelivered(f"it answers {error.code}") from None
    except urllib.error.URLError as error:
        raise NotDelivered(f"no answer ({type(error.reason).__name__})") from None
    except Exception as error:  # e.g. a garbled answer; the text of the error may have the URL in it
        raise NotDelivered(f"no answer ({type(error).__name__})") from None


def _run(command: tuple[str, ...], body: bytes, fields: Mapping[str, Any], timeout_s: float) -> None:
    simple = {name: value for name, value in fields.items() if not isinstance(value, Mapping)}
    environment = {PREFIX + name.upper(): "" if value is None else str(value) for name, value in simple.items()}
    try:
        done = subprocess.run(
            command,
            input=body,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            start_new_session=True,  # the signal that ends the verb's process group is no business of the command
        )
    except subprocess.TimeoutExpired:
        raise NotDelivered(f"it did not end within {timeout_s:g} s") from None
    except OSError as error:
        raise NotDelivered(error.strerror or type(error).__name__) from None
    if done.returncode:
        raise NotDelivered(f"it ended with exit code {done.returncode}")
