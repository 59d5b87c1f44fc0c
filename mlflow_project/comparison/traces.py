"""The traces of filmed episodes as artifacts that a page can load.

MLflow shows a page in a sandbox, to which its server gives no data: a ``fetch`` is refused there, and so it is in a
page that was opened from disk. Scripts are loaded in both places. So a trace is a script of one call; its suffix is
``.mjs``, because MLflow serves ``.js`` as plain text, which browsers do not run.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

_BEGIN, _END = "rlinfIsaacTrace(\n", "\n)\n"


def trace_name(video: str) -> str:
    """Artifact name of the trace of a video: ``videos/episode_003.mp4`` -> ``videos/episode_003.trace.mjs``,
    and of ``rollout.mp4``, the first one, ``rollout.trace.mjs``."""
    return PurePosixPath(video).with_suffix(".trace.mjs").as_posix()


def as_script(trace: str) -> str:
    """The script with this trace, which is JSON (`engines.rollout.film.Film`)."""
    return f"{_BEGIN}{trace}{_END}"


def from_script(script: str) -> dict[str, Any]:
    """The trace in a script. Raises ValueError if it is none: anybody may have written an artifact."""
    found = None
    if script.startswith(_BEGIN) and script.endswith(_END):
        with suppress(json.JSONDecodeError):
            found = json.loads(script[len(_BEGIN) : -len(_END)])
    if not isinstance(found, dict):
        raise ValueError("this is no trace of an episode")
    return found
