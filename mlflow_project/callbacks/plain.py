"""Other programs' values as plain JSON values and numbers, without what only looks like one, and without secrets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from mlflow_project.tracking.redact import HIDDEN, names_a_secret, redact

_DEEPEST = 12
_TOKENIZER = re.compile(r"tokeni[sz]\w*", re.I)
"""Such a key would look like that of a token."""


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON has it: dataclasses and mappings as dicts, sequences as lists, all else as a number or its text.

    A dataclass has its class's name as ``class``, because a config often says by it what it is. The value of a key that
    names a secret (``api_key``) is hidden, and so are credentials and this process's secrets within texts.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= _DEEPEST:
        return redact(str(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **_members(fields, depth)}
    if isinstance(value, Mapping):
        return _members(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each, depth + 1) for each in value]
    return redact(str(value.value if isinstance(value, Enum) else value))


def _members(values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    return {
        str(key): HIDDEN if value and isinstance(value, str) and _hides(str(key)) else plain(value, depth + 1)
        for key, value in values.items()
    }


def _hides(key: str) -> bool:
    return names_a_secret(_TOKENIZER.sub("", key))


def numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The members of `values` that are single numbers (Python's, or arrays and tensors of one element), as floats.

    Infinities and NaN stay: that a loss became NaN is worth a point. Everything else (images, tables, texts) is left
    out.
    """
    found = {}
    for key, value in values.items():
        if isinstance(value, int | float):
            found[f"{prefix}{key}"] = float(value)
        elif callable(item := getattr(value, "item", None)):
            try:
                found[f"{prefix}{key}"] = float(item())
            except (TypeError, ValueError, RuntimeError):  # of several elements, or of none
                continue
    return found
