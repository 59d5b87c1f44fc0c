"""Curves in a terminal, of braille dots: two columns and four rows of dots in each character."""

from __future__ import annotations

import math
from collections.abc import Sequence

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def curve(points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
    """The curve through points (x, y), sorted by x, as `height` lines of `width` characters, the highest first.

    Several points in one column of dots become a line from their smallest to their largest. Values that are not finite
    are left out.
    """
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    cells = [[0] * width for _ in range(height)]
    if not finite:
        return ["".join(" " for _ in row) for row in cells]
    columns, rows = 2 * width, 4 * height
    (first, *_), (last, *_) = finite[0], finite[-1]
    low, high = min(y for _, y in finite), max(y for _, y in finite)

    def place(x: float, y: float) -> tuple[int, int]:
        column = round((x - first) / (last - first) * (columns - 1)) if last > first else 0
        row = round((high - y) / (high - low) * (rows - 1)) if high > low else rows // 2
        return column, row

    def dot(column: int, row: int) -> None:
        cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]

    before = place(*finite[0])
    dot(*before)
    for x, y in finite[1:]:
        here = place(x, y)
        steps = max(abs(here[0] - before[0]), abs(here[1] - before[1]), 1)
        for step in range(1, steps + 1):
            dot(*(round(a + (b - a) * step / steps) for a, b in zip(before, here, strict=True)))
        before = here
    return ["".join(chr(0x2800 + bits) if bits else " " for bits in row) for row in cells]


def bar(fraction: float, width: int) -> str:
    """A bar of `width` characters, filled to an eighth of a character."""
    eighths = round(min(1.0, max(0.0, fraction)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width)
