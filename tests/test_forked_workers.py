"""What is forked instead of spawned is what would have been spawned: in the environment of whoever starts it."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection


def tell(sender: Connection) -> None:
    sender.send((os.environ.get("FORKED_FROM"), "torch" in sys.modules))
    signal.pause()


def test_it_has_the_environment_of_its_caller_and_its_end_is_seen(monkeypatch) -> None:
    context = get_context("spawn")
    for value in ("one", "other", None):
        monkeypatch.delenv("FORKED_FROM", raising=False)
        if value:
            monkeypatch.setenv("FORKED_FROM", value)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=tell, args=(sender,))
        process.start()
        assert receiver.recv() == (value, True)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
