"""Reads the ``config.json`` of a bundle: the job that trained the checkpoint, without values that are not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlinf_isaac.checkpoint.facts import FACTS, NOT_KNOWN
from rlinf_isaac.checkpoint.foreign.said.statements import Statements
from rlinf_isaac.config import flatten

_SECTIONS = ("model", "policy")
# Settings that depend on the machine. The tokenizer's fingerprint is recorded outside the job.
_NOT_OF_THE_TRAINING = ("policy.asset_id", "policy.tokenizer")


def is_ours(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` belongs to a bundle. Its manifest may be missing."""
    return isinstance(values.get("job"), dict)


def read_ours(values: Mapping[str, Any], place: str, statements: Statements) -> None:
    """Read the job's architecture and policy."""
    # Earlier releases had no list of unknown facts and wrote a preset's values for them.
    unknown = values.get(NOT_KNOWN, list(FACTS) if "source" in values else [])
    names = [name for name in FACTS if name in unknown] if isinstance(unknown, list) else []
    left_out = {FACTS[name].key for name in names} | set(_NOT_OF_THE_TRAINING)
    sections = {name: values["job"][name] for name in _SECTIONS if isinstance(values["job"].get(name), dict)}
    for key, value in flatten(sections).items():
        if key not in left_out:
            statements.say(key, value, f"{place}: job.{key}")
