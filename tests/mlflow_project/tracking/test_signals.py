from __future__ import annotations

import os
import signal
import time

import pytest

from mlflow_project.tracking import signals
from mlflow_project.tracking.progress import watch
from mlflow_project.tracking.signals import Signals, Terminated
from rlinf_isaac.ground.events import Progress

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Loses:
    """Its finaliser gets a signal, and Python throws away what the handler raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        time.monotonic()  # the handler runs here at the latest


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_that_was_lost_ends_the_loop(number, error):
    seen = []

    def stream():
        for done in range(5):
            if done == 2:
                Loses(number)
            yield Progress("sft", done, 5)

    with pytest.raises(error), Signals():
        watch(seen.append(event.done) or event for event in stream())
    assert seen == [0, 1, 2]


def test_what_shall_be_ignored_is_not_raised_later():
    with Signals() as handler:
        handler.ignore = True
        os.kill(os.getpid(), signal.SIGTERM)
        signals.poll()


def test_a_signal_belongs_to_its_block():
    def work():
        with Signals():
            os.kill(os.getpid(), signal.SIGINT)
            signals.poll()

    with pytest.raises(KeyboardInterrupt):
        work()
    signals.poll()
    with Signals():
        signals.poll()
