"""What every reader of another tool's results returns: arms with episodes, or with no more than counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlinf_isaac.ground.errors import InvalidJob

MAX_EPISODES = 200_000
"""Most episodes of one source, as rows or as counts."""
MAX_SEED = 2**63 - 1
NOT_KNOWN = "not known"
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError)
"""What reading a file of another form than expected can raise."""


@dataclass(frozen=True)
class Options:
    """What a person states about a source because its files do not say it; None is not stated.

    Attributes:
        episodes: episodes behind each bare rate.
        policy: name of the policy.
        task: name of the task, of a source that names none.
        first_seed: seed of the first episode of each task; the next ones count up.
    """

    episodes: int | None = None
    policy: str | None = None
    task: str | None = None
    first_seed: int | None = None


@dataclass(frozen=True)
class ForeignRow:
    """One episode; None is what the source does not say. `length` is in control steps, `video` a file below the
    source's directory."""

    success: bool
    seed: int | None = None
    length: int | None = None
    episode_return: float | None = None
    outcome: str = "failure"
    extras: Mapping[str, float] = field(default_factory=dict)
    video: Path | None = None


@dataclass(frozen=True)
class Arm:
    """One policy in one task: its episodes, or only how many of them succeeded.

    Attributes:
        counts: (successes, episodes) of a source without episodes; None where there are `rows`.
    """

    policy: str
    task: str
    rows: tuple[ForeignRow, ...] = ()
    counts: tuple[int, int] | None = None

    @property
    def successes(self) -> int:
        """Solved episodes."""
        return self.counts[0] if self.counts else sum(row.success for row in self.rows)

    @property
    def n(self) -> int:
        """Episodes."""
        return self.counts[1] if self.counts else len(self.rows)

    @property
    def seeded(self) -> bool:
        """Whether every episode has a seed of its own."""
        seeds = [row.seed for row in self.rows]
        return bool(seeds) and None not in seeds and len({*seeds}) == len(seeds)


@dataclass(frozen=True)
class ForeignResults:
    """The results of one source.

    Attributes:
        format: key of `read.READERS`.
        version: of the tool, or `NOT_KNOWN`.
        root: the file or directory that was named.
        known: settings that the source says and that must agree for two evaluations to be paired.
        stated: what a person added, `Options` without what is None.
        files: files that were read.
        digest: sha256 over their contents, the names of the videos and `stated`.
    """

    format: str
    version: str
    root: Path
    arms: tuple[Arm, ...]
    known: Mapping[str, Any] = field(default_factory=dict)
    stated: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    digest: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of the policies in the order of the source."""
        return tuple(dict.fromkeys(arm.policy for arm in self.arms))

    def of(self, policy: str) -> tuple[Arm, ...]:
        """The arms of a policy."""
        return tuple(arm for arm in self.arms if arm.policy == policy)


def damaged(path: Path, cause: object) -> InvalidJob:
    """The error of a file that cannot be read as what it seems to be."""
    return InvalidJob.of("results-damaged", f"{path}: {cause}", "write the results again, or name another file")


def bare_rate(path: Path, where: str) -> InvalidJob:
    """The error of a success rate without its number of episodes."""
    cause = f"{path}: the success rate of {where} stands without a number of episodes, so nothing can be tested"
    return InvalidJob.of("rate-without-n", cause, "say how many episodes it was measured on: --episodes N")


def counts_of(path: Path, where: str, rate: float, n: int | None) -> tuple[int, int]:
    """Successes and episodes of a rate in [0, 1].

    Raises:
        InvalidJob: there is no `n`, or no whole number of successes has this rate when it is rounded to 3 digits.
    """
    if n is None:
        raise bare_rate(path, where)
    if not 0 <= rate <= 1 or not 1 <= n <= MAX_EPISODES:
        raise damaged(path, f"{where}: a rate of {rate:g} in {n} episodes is no result")
    successes = round(rate * n)
    if abs(successes / n - rate) > 0.00051:
        raise damaged(path, f"{where}: no whole number of successes in {n} episodes has the rate {rate:g}")
    return successes, n


def flag(value: Any) -> bool:
    """A success as people write it: true/false, 0/1, 0.0/1.0, yes/no. Raises ValueError for anything else."""
    words = {"true": True, "1": True, "1.0": True, "yes": True, "false": False, "0": False, "0.0": False, "no": False}
    text = str(value).strip().lower()
    if text not in words:
        raise ValueError(f"success is {str(value)[:40]!r}, not true or false (1 or 0)")
    return words[text]


def number(value: Any) -> float | None:
    """A finite number, or None for what is none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any, name: str, least: int = 0) -> int | None:
    """An integer from `least` on, None where the cell is empty. Raises ValueError for anything else."""
    if value is None or value == "":
        return None
    found = number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        exact = value
    elif isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 25:
        exact = int(value)
    elif found is not None and found == int(found) and abs(found) < 2**53:
        exact = int(found)
    else:
        raise ValueError(f"{name} is {str(value)[:40]!r}, not a whole number")
    if not least <= exact <= MAX_SEED:
        raise ValueError(f"{name} is {exact}, out of range")
    return exact
