"""Lets the same verbs run against each other: N processes leave one barrier together, and their ends are collected.

ends = race(start, [["promote", run]] * 4, directory)
assert sorted(end.status for end in ends) == [0, 3, 3, 3]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.verbs import End, Job


@dataclass(frozen=True)
class Racer:
    """How one of them ended: its exit code, and what it printed."""

    status: int
    output: str


def race(
    start: Callable[[Sequence[Job]], list[End]],
    verbs: Sequence[Sequence[str]],
    directory: Path,
    environment: Mapping[str, str | None] | None = None,
) -> list[Racer]:
    """Run verbs at once in one directory.

    Args:
        start: of `faults.verbs.verbs`.
        verbs: arguments of ``rlinf-isaac``, of each process.
        environment: variables beyond those of the caller.
    """
    logs = [directory / f"racer-{number}.log" for number in range(len(verbs))]
    jobs = [
        Job(list(map(str, arguments)), str(directory), dict(environment or {}), str(log))
        for arguments, log in zip(verbs, logs, strict=True)
    ]
    ends = start(jobs)
    return [Racer(end.status, log.read_text()) for end, log in zip(ends, logs, strict=True)]
