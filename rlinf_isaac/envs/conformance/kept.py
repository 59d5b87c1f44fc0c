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


OF_DATASET = (
    "env-channel-order",
    "env-dataset-actions",
    "env-image-differs",
    "env-image-flipped",
    "env-image-size",
    "env-state-differs",
)
"""Codes of what only a comparison with a dataset finds."""


def keep_findings(identity: Mapping[str, Any], codes: Collection[str], *, with_dataset: bool) -> None:
    """Keep the codes that were found of the environment with this `EnvIdentity`. Without a dataset, what an earlier
    comparison with one has found stays."""
    file = _file(identity)
    if not with_dataset:
        codes = [*codes, *(code for code in _codes(file) or () if code in OF_DATASET)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps({name: identity[name] for name in IDENTIFYING} | {"codes": sorted(set(codes))}))


def kept_findings(identity: Mapping[str, Any]) -> str:
    """The codes that were last found of this environment, `NOTHING`, or `NOT_CHECKED`."""
    with suppress(KeyError, RuntimeError):
        found = _codes(_file(identity))
        return NOT_CHECKED if found is None else ", ".join(found) or NOTHING
    return NOT_CHECKED


def _codes(file: Path) -> list[str] | None:
    """The codes in a file; None where there is none that can be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return list(map(str, json.loads(file.read_text())["codes"]))
    return None


def _file(identity: Mapping[str, Any]) -> Path:
    """Images of another size, and episodes of another length, are of the same environment."""
    key = json_digest({name: identity[name] for name in IDENTIFYING})
    return cache_directory("conformance") / f"{key}.json"
