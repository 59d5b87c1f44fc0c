"""What a config key takes, in words: for help texts, completion, and messages about a value of a wrong type."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from rlinf_isaac.config.rules import Rule
from rlinf_isaac.config.schema import JobConfig

_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_METAVARS = {int: "INTEGER", float: "FLOAT", bool: "BOOLEAN"}
_FACTORS = {"k": 10**3, "m": 10**6, "g": 10**9}
_SUFFIXED = re.compile(r"([+-]?\d+(?:\.\d+)?)([kmg])", re.I)


@dataclass(frozen=True)
class Key:
    """What a key of the job config takes.

    Attributes:
        name: the key, ``sft.lr``.
        type: type of its value: int, float, bool, str, or a list.
        rules: the conditions on its value.
    """

    name: str
    type: Any
    rules: tuple[Rule, ...] = ()

    @property
    def choices(self) -> tuple[str, ...]:
        """The names that the value may be; empty if it is not one of a few names."""
        return next((rule.choices for rule in self.rules if rule.choices), ())

    @property
    def metavar(self) -> str:
        """The placeholder of a value in a help text: ``INTEGER``, ``[ppo|grpo]``."""
        return f"[{'|'.join(self.choices)}]" if self.choices else _METAVARS.get(self.type, "TEXT")

    @property
    def range(self) -> str:
        """The condition on a number, in words; empty if there is none."""
        return ", and ".join(rule.words for rule in self.rules if not rule.choices)

    @property
    def sentence(self) -> str:
        """What a value must be: ``a whole number greater than 0``."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        noun = _NOUNS.get(self.type, "a list in brackets, e.g. [1,2]")
        return f"{noun} {self.range}" if self.range.startswith(("greater", "0 or", "between")) else noun


@cache
def key_of(name: str) -> Key | None:
    """What a key takes; None if there is no such key. Only its own annotation is read: all of them take a while."""
    section: Any = JobConfig
    *sections, field = name.split(".")
    for each in sections:
        section = _annotation(section, each)
        if not (isinstance(section, type) and is_dataclass(section)):
            return None
    hint = _annotation(section, field)
    if hint is None or (isinstance(hint, type) and is_dataclass(hint)):
        return None
    if get_origin(hint) is not Annotated:
        return Key(name, hint)
    hint, *others = get_args(hint)
    return Key(name, hint, tuple(each for each in others if isinstance(each, Rule)))


def plain_number(text: str) -> str | None:
    """``1k`` -> ``1000``, ``2.5M`` -> ``2500000``: the number that a suffix means; None for any other text."""
    match = _SUFFIXED.fullmatch(text)
    if match is None:
        return None
    number = float(match[1]) * _FACTORS[match[2].lower()]
    return f"{number:.0f}" if number.is_integer() else f"{number:g}"


def _annotation(section: type, field: str) -> Any:
    text = inspect.get_annotations(section).get(field)
    return eval(text, vars(sys.modules[section.__module__])) if isinstance(text, str) else text
