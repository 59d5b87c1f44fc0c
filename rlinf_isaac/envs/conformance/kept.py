"""What the checks found of an environment, kept in the cache directory: runs that play in it say so."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlinf_isaac.ground.atomic import write_file
from rlinf_isaac.ground.cache import cache_directory
from rlinf_isaac.ground.digest import json_digest

NOT_CHECKED, NOTHING = "not checked", "none"
IDENTIFYING = ("backend", "task", "assets")
"""Of an `EnvIdentity`: simulator, task, and the digest of the scene, or of the task and its packages."""


def keep_findings(identity: Mapping[str, Any], codes: Collection[str]) -> None:
    """Keep the codes that were found of the environment with this `EnvIdentity`."""
    file = _file(identity)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps({name: identity[name] for name in IDENTIFYING} | {"codes": sorted(set(codes))}))


def kept_findings(identity: Mapping[str, Any]) -> str:
    """The codes that were last found of this environment, `NOTHING`, or `NOT_CHECKED`."""
    with suppress(OSError, ValueError, KeyError, RuntimeError, TypeError):
        return ", ".join(map(str, json.loads(_file(identity).read_text())["codes"])) or NOTHING
    return NOT_CHECKED


def _file(identity: Mapping[str, Any]) -> Path:
    """Images of another size, and episodes of another length, are of the same environment."""
    key = json_digest({name: identity[name] for name in IDENTIFYING})
    return cache_directory("conformance") / f"{key}.json"
