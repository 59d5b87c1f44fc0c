"""Terms that end an episode: ``info.is_success``, ``info.obj_to_target<=0.07``, ``reward>=1``, ``terminated``; and
``term:success``, a termination term of IsaacLab.

A term without a comparison holds where its value is true. This module needs the standard library alone.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_TERM = re.compile(
    r"(?P<name>terminated|truncated|reward|info\.[\w/ .-]+?|term:\w+)"
    r"\s*(?:(?P<test>>=|<=|>|<)\s*(?P<bound>-?[\d.]+(?:e-?\d+)?))?"
)
TERM = "term:"
"""What the name of a termination term of IsaacLab begins with; in `info` it is called ``term/NAME``."""
_TESTS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def holds(term: str, reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> bool | None:
    """Whether a term holds after a control step; None where `info` does not have its entry, which some environments
    give only at the end of an episode."""
    match = _match(term)
    assert match is not None, f"{term!r} is no term"
    name = match["name"]
    if name.startswith(("info.", TERM)):
        key = name.removeprefix("info.").replace(TERM, "term/")
        if key not in info:
            return None
        value = info[key]
    else:
        value = {"terminated": terminated, "truncated": truncated, "reward": reward}[name]
    return bool(_TESTS[match["test"]](float(value), float(match["bound"])) if match["test"] else value)


def term_name(term: str) -> str:
    """What a term reads: ``info.distance`` of ``info.distance<=0.02``."""
    match = _match(term)
    return match["name"] if match else term


def wrong_term(term: str) -> str | None:
    """What is wrong with the spelling of a term; None if it is well-formed."""
    if _match(term):
        return None
    return f"{term!r} is no term like info.is_success, info.distance<=0.02, reward>=1 or terminated"


@lru_cache(maxsize=64)
def _match(term: str) -> re.Match[str] | None:
    return _TERM.fullmatch(term)
