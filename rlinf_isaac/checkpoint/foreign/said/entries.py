"""Reads JSON of other programs and checks its size, its form and the type of each entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlinf_isaac.ground.errors import BundleError, Problem
from rlinf_isaac.ground.reading import read_json

MAX_BYTES = 1_000_000
"""Largest file that is read. Such files have some thousand bytes."""


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is no such file.

    Raises:
        BundleError: ``checkpoint-config-damaged``, it cannot be read, is too large, or is not a JSON object.
    """
    cure = "copy it again from where the checkpoint was made, or move it away: then nothing is taken from it"
    try:
        if not path.exists():
            return None
        value = read_json(path, MAX_BYTES)
        if not isinstance(value, dict):
            raise ValueError(f"it holds a JSON {type(value).__name__}, not an object")
        return value
    except OSError as error:
        raise BundleError.of("checkpoint-config-damaged", f"{path} cannot be read: {error.strerror}", cure) from error
    except ValueError as error:
        raise BundleError.of("checkpoint-config-damaged", f"{path} is not a config: {error}", cure) from error


class Entries:
    """Typed access to the entries of one JSON object. An entry of a wrong type is a problem, and read as missing.

    Attributes:
        place: name of the object in messages: ``config.json``.
        problems: problems of the entries that were read so far.
    """

    def __init__(self, place: str, values: Mapping[str, Any]) -> None:
        self.place = place
        self.problems: list[Problem] = []
        self._values = values

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def count(self, key: str) -> int | None:
        """A whole number above 0 and below 2^31."""
        value = self._values.get(key)
        return value if self._is(key, type(value) is int and 0 < value < 2**31, "a whole number above 0") else None

    def flag(self, key: str) -> bool | None:
        value = self._values.get(key)
        return value if self._is(key, isinstance(value, bool), "true or false") else None

    def word(self, key: str, choices: Sequence[str] = ()) -> str | None:
        """A text; if `choices` are given, one of them."""
        value = self._values.get(key)
        right = isinstance(value, str) and (not choices or value in choices)
        return value if self._is(key, right, f"one of {', '.join(choices)}" if choices else "a text") else None

    def words(self, key: str) -> list[str] | None:
        value = self._values.get(key)
        right = isinstance(value, list) and all(isinstance(word, str) for word in value)
        return value if self._is(key, right, "a list of texts") else None

    def inner(self, key: str) -> Mapping[str, Any] | None:
        value = self._values.get(key)
        return value if self._is(key, isinstance(value, dict), "an object") else None

    def _is(self, key: str, right: bool, wanted: str) -> bool:
        value = self._values.get(key)
        if value is None:
            return False
        if not right:
            text = repr(value)
            shown = ascii(text if len(text) <= 80 else f"{text[:80]}...")[1:-1]
            cause = f"{self.place}: {key} is {shown}, not {wanted}"
            cure = "copy the file again from where the checkpoint was made, or correct that entry"
            self.problems.append(Problem("checkpoint-config-value", cause, cure))
        return right
