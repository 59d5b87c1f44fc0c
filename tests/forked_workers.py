"""Worker processes forked from one that has imported once what takes seconds to import, instead of spawned.

`fork_workers` makes `multiprocessing` start what it would spawn from a server of its own, its start method
``forkserver``: the same pickles, pipes and sentinels, in the environment of the caller, without four seconds of imports
for each. What tests run as a command of its own, `forked_verbs` among it, spawns.
"""

from __future__ import annotations

import os
from multiprocessing.context import SpawnProcess
from multiprocessing.forkserver import set_forkserver_preload
from multiprocessing.popen_forkserver import Popen
from typing import Any

import pytest

IMPORTED = (
    "torch",
    "mujoco",
    "rlinf_isaac.engines.demonstrations",
    "rlinf_isaac.engines.local.rl.workers",
    "rlinf_isaac.engines.local.sft.train",
    "rlinf_isaac.engines.local.training.processes",
    "rlinf_isaac.envs.mujoco.env",
)


class _Environment(dict[str, str]):
    """Becomes that of the process which unpickles it; the server's is as old as the server."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _take, (dict(self),)


def _take(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


class _Forked(Popen):
    def _launch(self, process_obj: Any) -> None:
        process_obj.__dict__ = {"environment": _Environment(os.environ), **vars(process_obj)}
        super()._launch(process_obj)


_SPAWN = SpawnProcess._Popen


def fork_workers(patch: pytest.MonkeyPatch) -> None:
    """From now on a spawned process of this one is forked; the first takes as long as one that is spawned."""
    set_forkserver_preload(list(IMPORTED))
    patch.setattr(SpawnProcess, "_Popen", staticmethod(_Forked))


def spawn_workers(patch: pytest.MonkeyPatch) -> None:
    """Take `fork_workers` back, for a test of what a spawned process is like."""
    patch.setattr(SpawnProcess, "_Popen", staticmethod(_SPAWN))
