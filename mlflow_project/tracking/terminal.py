"""The one way to the terminal: what others wrote is shown, and never acts.

Names, paths and messages come from files of other people. A control character in one could clear the screen, set the
title, or write over what stands there; a newline could forge a line of ours; a bidirectional override could turn a
path round. Here each is spelled as Python spells it (``\\x1b``, ``\\u202e``, ``\\n``), whatever the way it came. Nor
does a password leave by here (`redact`).
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mlflow_project.tracking.redact import redact

# C0, C1, soft hyphen, bidirectional marks and overrides, separators and formats that are not seen, lone surrogates,
# tags. Joiners (U+200C, U+200D) stay: scripts and emoji are written with them.
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)


def escaped(text: str, *, lines: bool = False) -> str:
    """`text` with what would act on a terminal spelled out; newlines stay with `lines` only."""
    safe = _UNSAFE.sub(_spelled, redact(text))
    return safe if lines else safe.replace("\n", "\\n")


class SafeConsole(Console):
    """A console of rich that prints what it is given as it is: no markup in texts, and nothing that acts.

    Whoever wants colours prints a `rich.text.Text`. Texts are one line each, unless it is said that they are several.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **settings})

    def print(self, *objects: Any, lines: bool = False, **settings: Any) -> None:
        """As `Console.print`. A text's own newlines are spelled out, but for those that it begins with, and with
        `lines` all stay."""
        shown = (_one_line(each) if isinstance(each, str) and not lines else each for each in objects)
        super().print(*shown, **settings)

    def on_broken_pipe(self) -> None:
        """The reader has gone (``| head``): say nothing more, and end as a program does that SIGPIPE ends."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        raise SystemExit(128 + signal.SIGPIPE)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As `Console.render`; whatever was printed comes by here, tables and log messages as well."""
        if isinstance(renderable, str):
            renderable = escaped(renderable, lines=True)  # before rich drops some of them without a word
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(escaped(text, lines=True), style)


def _one_line(text: str) -> str:
    body = text.lstrip("\n")
    return "\n" * (len(text) - len(body)) + escaped(body)


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
