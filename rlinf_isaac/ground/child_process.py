"""Set-up of this project's worker processes."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import connection, parent_process


def follow_parent() -> None:
    """Ignore ctrl-C, which reaches the whole process group, and exit when the parent ends, even by SIGKILL.

    Otherwise a worker whose parent was killed would wait forever, because it holds both ends of its queue.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
