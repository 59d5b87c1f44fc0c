"""Checks the types of the entries of a bundle's ``config.json``, on which its readers rely.

A correct digest only shows that the file is unchanged since the bundle was sealed, not that this project wrote it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import Problem

_SECTIONS = tuple(name for name, value in vars(JobConfig()).items() if is_dataclass(value))
_CURE = "copy the bundle again from where it was made, or make it again: rlinf-isaac bundle make SOURCE"


def description_problems(config: Mapping[str, Any], place: str) -> list[Problem]:
    """One problem for each entry of a ``config.json`` whose type is wrong.

    Args:
        config: content of the file.
        place: name of the file in messages.
    """
    problems = list(_wrong_types(config, _KINDS, place))
    for key, kinds in _INNER.items():
        inner = config.get(key)
        if isinstance(inner, dict):
            problems += _wrong_types(inner, kinds, f"{place}: {key}")
    return problems


def _wrong_types(values: Mapping[str, Any], kinds: Mapping[str, _Kind], place: str) -> list[Problem]:
    problems = []
    for key, (is_kind, wanted) in kinds.items():
        value = values.get(key)
        if value is not None and not is_kind(value):
            shown = ascii(value)
            shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
            problems.append(Problem("bundle-description", f"{place}: {key} is {shown}, not {wanted}", _CURE))
    return problems


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _is_map_of_maps(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_map, value.values()))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_map_of_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_rate(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 < value < 1e6


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_flat_map(value: Any) -> bool:
    return isinstance(value, dict) and not any(isinstance(entry, dict | list) for entry in value.values())


def _are_sizes(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(size, list) and len(size) == 2 and all(map(_is_count, size)) for size in value.values()
    )


def _is_layout(value: Any) -> bool:
    return _is_text(value) or _is_texts(value)


_Kind = tuple[Callable[[Any], bool], str]
_MAP: _Kind = (_is_map, "an object")
_TEXT: _Kind = (_is_text, "a text")
_TEXTS: _Kind = (_is_texts, "a list of texts")
_RATE: _Kind = (_is_rate, "a rate in Hz")
_FLAT: _Kind = (_is_flat_map, "an object of numbers and texts")
_KINDS: dict[str, _Kind] = {
    "job": _MAP,
    "tokenizer": _FLAT,
    "prompts": (_is_map_of_texts, "an object of texts"),
    "control_hz": _RATE,
    "state_names": _TEXTS,
    "action_names": _TEXTS,
    "env": _MAP,
    "images": (_are_sizes, "an object of heights and widths"),
    "not_known": _TEXTS,
    "assumed": _MAP,
    "source": _MAP,
    "base": _MAP,
    "norm_stats": _MAP,
    "tasks": (_is_map_of_maps, "an object of objects"),
    "trained_from": _TEXT,
}
_INNER: dict[str, dict[str, _Kind]] = {
    "job": {"preset": _TEXT} | dict.fromkeys(_SECTIONS, _MAP),
    "assumed": {
        "prompt": _TEXT,
        "control_hz": _RATE,
        "state": (_is_layout, "a layout, or a list of texts"),
        "actions": _TEXTS,
        "tokenizer": _TEXT,
        "norm": _TEXT,
        "delta_actions": _TEXT,
    },
    "source": {"files": _MAP, "stripped": _TEXTS, "excluded": _TEXTS, "said": _MAP},
}
