"""All output to the terminal goes through `SafeConsole`, which escapes control characters in foreign text.

Names, paths and messages come from files of other people. A control character in them could clear the screen, set the
window title or overwrite earlier lines; a newline could forge a line of this program; a bidirectional override could
reverse a path. This module prints such characters as Python escapes (``\\x1b``, ``\\u202e``, ``\\n``). It also removes
passwords (`redact`).
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment

from mlflow_project.tracking.redact import redact

# C0, C1, soft hyphen, bidirectional marks and overrides, invisible separators and format characters, lone surrogates,
# tags. Joiners (U+200C, U+200D) are allowed, because some scripts and emoji need them.
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)

WIDTH_OF_PIPES = 1000
"""Columns of what is no terminal: nothing is cut or wrapped there that somebody may search or copy."""


def escaped(text: str, *, lines: bool = False) -> str:
    """`text` with control characters escaped and passwords removed; newlines are escaped unless `lines` is true."""
    safe = _UNSAFE.sub(_escape, redact(text))
    return safe if lines else safe.replace("\n", "\\n")


class SafeConsole(Console):
    """A rich console that interprets no markup and escapes control characters.

    To print colours, pass a `rich.text.Text`. A plain string is printed as one line unless `lines` is true.
    """

    def __init__(self, **settings: Any) -> None:
        plain = {"markup": False, "highlight": False, "emoji": False}
        # A notebook's kernel claims to be a terminal, and shows control sequences as they are; and rich would display
        # each line there as a page of its own.
        notebook = {"force_jupyter": False, "force_terminal": False} if _in_notebook() else {}
        super().__init__(**{**plain, **notebook, **settings})

    @property
    def size(self) -> ConsoleDimensions:
        """The size of the terminal. Without one (a pipe, a file) lines are as long as they are, unless COLUMNS says."""
        size = super().size
        if self._width is None and not self.is_terminal and not self.is_jupyter and "COLUMNS" not in os.environ:
            return ConsoleDimensions(WIDTH_OF_PIPES, size.height)
        return size

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def print(self, *objects: Any, lines: bool = False, **settings: Any) -> None:
        """Like `Console.print`, but newlines inside a string are escaped unless `lines` is true; leading ones stay."""
        safe = (_one_line(item) if isinstance(item, str) and not lines else item for item in objects)
        super().print(*safe, **settings)

    def on_broken_pipe(self) -> None:
        """Exit silently, with the status of a process killed by SIGPIPE: the reader (``| head``) has ended."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        raise SystemExit(128 + signal.SIGPIPE)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Like `Console.render`, with control characters escaped. Tables and log messages are rendered here, too."""
        if isinstance(renderable, str):
            renderable = escaped(renderable, lines=True)  # now, because rich silently drops some control characters
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(escaped(text, lines=True), style)


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and kernel.IPKernelApp.initialized()


def _one_line(text: str) -> str:
    body = text.lstrip("\n")
    return "\n" * (len(text) - len(body)) + escaped(body)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
