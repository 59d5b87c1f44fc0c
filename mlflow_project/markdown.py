"""Other people's text inside Markdown, which MLflow shows as a run's or a version's description."""

from __future__ import annotations


def plain(text: str) -> str:
    """`text` with Markdown's special characters escaped, because names come from other people."""
    return "".join(f"\\{char}" if char in "\\`*_[](){}<>|#!" else " " if char in "\r\n" else char for char in text)
