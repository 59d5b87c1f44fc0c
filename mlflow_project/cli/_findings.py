"""What is printed of findings: what several checkpoints have in common once, and digests in short."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rlinf_isaac.ground.errors import Problem

DIGITS = 12
"""Digits of a sha256 that are printed. The MLflow run, and `doctor --json`, have all of them."""
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
_PATH = re.compile(r"(?P<path>/\S+) (?P<rest>.+)", re.S)


def grouped(problems: Iterable[Problem]) -> list[Problem]:
    """The problems in their order; those that say the same of several paths are one, which lists the paths.

    ``/c/400 was trained ...`` and ``/c/800 was trained ...`` become ``/c/{400,800} was trained ...``.
    """
    groups: dict[tuple[str, ...], list[Problem]] = {}
    for problem in problems:
        match = _PATH.fullmatch(problem.cause)
        said = match["rest"] if match else problem.cause
        key = (problem.level, problem.code, problem.cure, said, "path" if match else "")
        groups.setdefault(key, []).append(problem)
    return [_one(each) for each in groups.values()]


def short(text: str) -> str:
    """The text, with the first digits of every sha256 in it."""
    return _SHA256.sub(lambda match: f"{match[0][:DIGITS]}...", text)


def _one(problems: list[Problem]) -> Problem:
    first = problems[0]
    matches = [_PATH.fullmatch(problem.cause) for problem in problems]
    paths = list(dict.fromkeys(Path(match["path"]) for match in matches if match))
    if len(paths) < 2 or matches[0] is None:
        return first
    parents = {path.parent for path in paths}
    names = f"{paths[0].parent}/{{{','.join(path.name for path in paths)}}}"
    listed = names if len(parents) == 1 else ", ".join(map(str, paths))
    return replace(first, cause=f"{listed} {matches[0]['rest']}")
