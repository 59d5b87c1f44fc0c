"""What is said of a training, by whom, and how it is collected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlinf_isaac.ground.errors import Problem


@dataclass(frozen=True)
class Said:
    """What the files of a checkpoint say of its training. What they do not say is absent: no default stands for it.

    Attributes:
        values: key of the job config (``model.action_horizon``) -> value.
        places: the same keys -> where it is said (``config.json: chunk_size``).
        doubtful: keys whose value is the best reading, but not certain; `remarks` say why.
        tokenizer: where it is said that prompts were encoded by PaliGemma's tokenizer; empty where it is not.
        remarks: what a person should know besides, one sentence each.
        writer: whose ``config.json`` it is, where it is that of OpenPI, lerobot or RLinf.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    doubtful: tuple[str, ...] = ()
    tokenizer: str = ""
    remarks: tuple[str, ...] = ()
    writer: Literal["openpi", "lerobot", "rlinf", ""] = ""

    @property
    def certain(self) -> frozenset[str]:
        """The keys whose value is beyond doubt."""
        return frozenset(self.values) - frozenset(self.doubtful)


class Statements:
    """Collects what files say, and what is wrong with them."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        self.doubtful: list[str] = []
        self.remarks: list[str] = []
        self.problems: list[Problem] = []
        self.tokenizer = ""
        self.writer: Literal["openpi", "lerobot", "rlinf", ""] = ""

    def say(self, key: str, value: Any, place: str) -> None:
        """Enter a value, unless it is None. Two places that differ are a problem."""
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
        """Take a value as the best reading only, and say why."""
        self.doubtful.append(key)
        self.remarks.append(remark)

    def refuse(self, cause: str, cure: str) -> None:
        """What is said cannot be done by the policy of this project."""
        self.problems.append(Problem("checkpoint-config-unsupported", cause, cure))

    def result(self) -> Said:
        """All of it, if nothing is wrong."""
        return Said(self.values, self.places, tuple(self.doubtful), self.tokenizer, tuple(self.remarks), self.writer)
