"""What a ``config.json`` of our own says: the job that trained the checkpoint, less what nobody knew of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlinf_isaac.checkpoint.facts import FACTS, NOT_KNOWN
from rlinf_isaac.checkpoint.foreign.said.statements import Statements
from rlinf_isaac.config import flatten

_SECTIONS = ("model", "policy")
# Where things lie on a machine; the tokenizer's fingerprint stands elsewhere.
_NOT_OF_THE_TRAINING = ("policy.asset_id", "policy.tokenizer")


def is_ours(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a bundle, with or without its manifest."""
    return isinstance(values.get("job"), dict)


def read_ours(values: Mapping[str, Any], place: str, found: Statements) -> None:
    """Enter the job's architecture and policy."""
    # An earlier release wrote a preset's values for whatever it did not know of a foreign checkpoint, and no list.
    unknown = values.get(NOT_KNOWN, list(FACTS) if "source" in values else [])
    names = [name for name in FACTS if name in unknown] if isinstance(unknown, list) else []
    left_out = {FACTS[name].key for name in names} | set(_NOT_OF_THE_TRAINING)
    sections = {name: values["job"][name] for name in _SECTIONS if isinstance(values["job"].get(name), dict)}
    for key, value in flatten(sections).items():
        if key not in left_out:
            found.say(key, value, f"{place}: job.{key}")
