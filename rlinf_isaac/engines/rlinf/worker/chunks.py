"""Adapts the ``chunk_step`` of other people's environments to what RLinf's env worker needs.

RLinf 0.3 (``workers/env/env_worker.py``) takes the last item of lists of observations and infos, but fails with an
UnboundLocalError if they are not lists, and looks for keys in an info that may be None.
"""

from __future__ import annotations

from typing import Any

import torch


def with_lists(environment: type) -> type:
    """A subclass of an environment class whose `chunk_step` returns lists, whatever the class itself returns.

    A single observation or info is taken as that of the chunk's last step; None becomes an empty info. RLinf takes the
    metrics of an ended episode from ``final_info``. If the info has none, the subclass copies ``episode`` to it.
    """

    class WithLists(environment):
        def chunk_step(self, chunk_actions: Any) -> tuple[list, Any, Any, Any, list]:
            observations, rewards, terminations, truncations, infos = super().chunk_step(chunk_actions)
            observations = list(observations) if isinstance(observations, (list, tuple)) else [observations]
            infos = list(infos) if isinstance(infos, (list, tuple)) else [infos]
            *before, last = [info or {} for info in infos] or [{}]
            if "final_info" not in last and torch.logical_or(terminations, truncations).any():
                last = last | {"final_info": {"episode": last.get("episode", {})}}
            return observations, rewards, terminations, truncations, [*before, last]

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(WithLists, name, getattr(environment, name))
    return WithLists
