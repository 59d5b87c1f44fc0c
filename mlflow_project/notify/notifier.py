"""The follower that sends notifications, from threads of its own: one reads the journal, one serves each address."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

from mlflow_project.notify.addresses import Address
from mlflow_project.notify.deliver import NotDelivered, deliver
from mlflow_project.notify.news import News, Newsroom
from mlflow_project.tracking import ui
from mlflow_project.tracking.followers import Followed
from mlflow_project.tracking.journal import read_header, read_operations
from mlflow_project.tracking.redact import without_credentials

logger = logging.getLogger("mlflow_project")

_PATIENCE_FOR_ID_S = 2.0
"""Seconds to wait for MLflow's id of a run, for the link."""
_RETRY_S = 1.0
"""Pause before an address is tried for the second and last time."""


class Notifier:
    """Follows one run (`tracking.followers.Follower`)."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._desks = [_Desk(address) for address in addresses]
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, run: Followed) -> None:
        """Read the journal from its beginning, and go on with every line that is added."""
        run.recorder.journal.call_too(self._wake.set)
        self._thread = threading.Thread(target=self._follow, args=(run,), name="notifier", daemon=True)
        self._thread.start()

    def close(self, limit_s: float) -> None:
        """Deliver what there is to deliver, for `limit_s` seconds at most."""
        deadline = time.monotonic() + limit_s
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(limit_s)
        for desk in self._desks:
            desk.close(max(0.0, deadline - time.monotonic()))

    def _follow(self, run: Followed) -> None:
        try:
            path = run.recorder.journal.path
            header, offset = read_header(path)
            newsroom = Newsroom(header.created)
            while True:
                self._wake.clear()
                last = self._closing.is_set()
                operations, offset = read_operations(path, offset)
                for operation, _ in operations:
                    for news in newsroom.read(operation):
                        fields = _with_link(news, run)
                        for desk in self._desks:
                            desk.take(fields)
                if last:
                    return
                self._wake.wait()
        except Exception as error:  # must not stop the verb
            logger.warning("notifications have stopped: %s", error, exc_info=error)


def _with_link(news: News, run: Followed) -> dict[str, Any]:
    ids = run.uploader.ids(news.run, _PATIENCE_FOR_ID_S)
    if ids is None:
        return news.as_dict()
    run_id, experiment = ids
    base = ui.base_url(without_credentials(run.tracking_uri)).rstrip("/")
    link = f"{base}/#/experiments/{experiment}/runs/{run_id}"
    return news.as_dict(run_id, link)


class _Desk:
    """Delivers to one address, one notification after the other, so that a slow address holds up no other one."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"notify {address}", daemon=True)
        self._thread.start()

    def take(self, fields: dict[str, Any]) -> None:
        self._waiting.put(fields)

    def close(self, limit_s: float) -> None:
        self._waiting.put(None)
        self._thread.join(limit_s)
        if self._thread.is_alive():
            logger.warning("%s was not notified: there was no time left", self._address)
        self._given_up.set()

    def _serve(self) -> None:
        while (fields := self._waiting.get()) is not None:
            for attempt in (1, 2):
                try:
                    deliver(self._address, fields)
                    break
                except NotDelivered as error:
                    if attempt == 2:
                        logger.warning("%s was not notified that %s: %s", self._address, fields["event"], error)
                    elif self._given_up.wait(_RETRY_S):
                        return
                except Exception as error:  # must not stop the notifications that follow
                    logger.warning("%s was not notified: %s", self._address, type(error).__name__)
                    break
