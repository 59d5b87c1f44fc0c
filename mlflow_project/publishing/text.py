"""Markdown from values of other people: names cannot become links, markup or further rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

UNKNOWN = "not known"


def plain(text: str) -> str:
    """`text` on one line, with the characters escaped that Markdown and HTML give a meaning."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#" else " " if char in "\r\n" else char for char in text)


def value_or_unknown(value: Any) -> str:
    """A value as a cell of a table."""
    return UNKNOWN if value in (None, "") else plain(str(value))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table. Cells are Markdown already."""
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
