"""The settings of a training that files of a checkpoint state, with the place of each statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlinf_isaac.ground.errors import Problem


@dataclass(frozen=True)
class Said:
    """What the files of a checkpoint say about its training. Settings that they do not state have no entry.

    Attributes:
        values: key of the job config (``model.action_horizon``) -> value.
        places: the same keys -> where the value is stated (``config.json: chunk_size``).
        doubtful: keys whose value is probable, but not certain; `remarks` give the reasons.
        tokenizer: where it is stated that prompts were encoded by PaliGemma's tokenizer; empty if it is not stated.
        remarks: other information for people, one sentence each.
        writer: the program that wrote ``config.json``, if it is OpenPI, lerobot or RLinf.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    doubtful: tuple[str, ...] = ()
    tokenizer: str = ""
    remarks: tuple[str, ...] = ()
    writer: Literal["openpi", "lerobot", "rlinf", ""] = ""

    @property
    def certain(self) -> frozenset[str]:
        """The keys whose value is certain."""
        return frozenset(self.values) - frozenset(self.doubtful)


class Statements:
    """Collects the statements of files, and problems with them."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        self.doubtful: list[str] = []
        self.remarks: list[str] = []
        self.problems: list[Problem] = []
        self.tokenizer = ""
        self.writer: Literal["openpi", "lerobot", "rlinf", ""] = ""

    def say(self, key: str, value: Any, place: str) -> None:
        """Enter a value, unless it is None. Different values for one key are a problem."""
        if value is None:
            return
        if key in self.values and self.values[key] != value:
            cause = f"{self.places[key]} says {key} {self.values[key]}, {place} says {value}"
            cure = "correct the one that is wrong, or move its file away: then nothing is taken from it"
            self.problems.append(Problem("checkpoint-config-contradiction", cause, cure))
            return
        self.values[key] = value
        self.places.setdefault(key, place)

    def doubt(self, key: str, remark: str) -> None:
        """Mark the value of a key as not certain; `remark` gives the reason."""
        self.doubtful.append(key)
        self.remarks.append(remark)

    def refuse(self, cause: str, cure: str) -> None:
        """Enter a problem: the policy of this project does not support what the file states."""
        self.problems.append(Problem("checkpoint-config-unsupported", cause, cure))

    def result(self) -> Said:
        """The collected statements. Only valid if there are no problems."""
        return Said(self.values, self.places, tuple(self.doubtful), self.tokenizer, tuple(self.remarks), self.writer)
