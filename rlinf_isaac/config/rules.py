"""What one value of a job config must be. A rule stands beside its field, as the second part of `typing.Annotated`.

lr: Annotated[float, POSITIVE] = 1e-3

OmegaConf sees the type alone. Values that must fit each other are a matter of `fits` and of the preflight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from rlinf_isaac.ground.errors import Problem


@dataclass(frozen=True)
class Rule:
    """A condition on one value.

    Attributes:
        words: what the value must be; they end the sentence "use a value that is ...".
        holds: whether a value of the field's type is that. Infinity and NaN never reach it.
        choices: the names that the value may be, if it is one of a few.
    """

    words: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


POSITIVE = Rule("greater than 0", lambda x: x > 0)
NOT_NEGATIVE = Rule("0 or greater", lambda x: x >= 0)
SHARE = Rule("between 0 and 1", lambda x: 0 <= x <= 1)
BELOW_ONE = Rule("0 or greater, and less than 1", lambda x: 0 <= x < 1)


def one_of(*names: str) -> Rule:
    """The value is one of these names."""
    return Rule(f"one of {', '.join(names)}", lambda x: x in names, names)


def rules_of(section: type, prefix: str = "") -> Iterator[tuple[str, Rule]]:
    """(key, rule) of every field that has a rule, of a section's class and those of the sections within it."""
    for name, hint in get_type_hints(section, include_extras=True).items():
        if isinstance(hint, type) and is_dataclass(hint):
            yield from rules_of(hint, f"{prefix}{name}.")
        for rule in (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Rule)):
            yield f"{prefix}{name}", rule


@cache
def _rules(section: type) -> tuple[tuple[str, Rule], ...]:
    return tuple(rules_of(section))


def out_of_range(section: type, values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the values of a config, each looked at alone.

    Args:
        section: the class whose rules hold, `schema.JobConfig`.
        values: of all its keys, as `config.flatten` gives them.
    """
    problems = []
    for key, rule in _rules(section):
        value = values[key]
        finite = not isinstance(value, float) or math.isfinite(value)
        if not (finite and rule.holds(value)):
            cure = f"set it to {rule.words}" if rule.choices else f"use a value that is {rule.words}"
            problems.append(Problem("bad-value", f"{key} is {value}", cure))
    return problems
