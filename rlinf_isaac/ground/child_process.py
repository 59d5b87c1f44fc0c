"""What every worker process of this project does first."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import connection, parent_process


def follow_parent() -> None:
    """Leave ctrl-C, which reaches the whole group, to the parent, and end when that has ended, even by SIGKILL.

    Without, a worker would wait for ever for a dead parent: it holds both ends of its queue.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
