"""Which checkpoints of a training stay on disk: ``all``, or ``last:2,best:1,every:10000``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rlinf_isaac.config.rules import Rule

ALL = "all"
_WORD = re.compile(r"(last|best|every):([1-9][0-9]{0,11})")


@dataclass(frozen=True)
class Keep:
    """What stays; a checkpoint stays if any of these holds it. 0 holds none.

    Attributes:
        last: how many of the newest.
        best: how many of the best.
        every: those whose step is a multiple of this.
        all: all of them.
    """

    last: int = 0
    best: int = 0
    every: int = 0
    all: bool = False

    def kept(self, steps: Collection[int], scores: Mapping[int, float]) -> dict[int, str]:
        """The steps that stay -> why.

        Args:
            steps: the checkpoints that there are.
            scores: step -> how good it is, higher is better, of those that were measured. Of equal ones the newest is
                the best.
        """
        if self.all:
            return dict.fromkeys(steps, ALL)
        found: dict[int, str] = {}
        measured = sorted((step for step in steps if step in scores), key=lambda step: (scores[step], step))
        held = {
            f"last:{self.last}": sorted(steps)[-self.last :] if self.last else [],
            f"best:{self.best}": measured[-self.best :] if self.best else [],
            f"every:{self.every}": [step for step in steps if self.every and step % self.every == 0],
        }
        for rule, those in held.items():
            for step in those:
                found[step] = f"{found[step]}, {rule}" if step in found else rule
        return found


def parse_keep(text: str) -> Keep:
    """Read a value of ``sft.keep``, ``rl.keep`` or ``--keep``.

    Raises:
        ValueError: it is none. The message is `WORDS`.
    """
    if text == ALL:
        return Keep(all=True)
    words = text.replace(",", " ").split()
    matches = [_WORD.fullmatch(word) for word in words]
    values = {match[1]: int(match[2]) for match in matches if match}
    if not words or len(values) < len(words):
        raise ValueError(WORDS)
    return Keep(values.get("last", 0), values.get("best", 0), values.get("every", 0))


WORDS = "all, or words such as last:2,best:1,every:10000, each once and at least 1"


def _is_keep(text: str) -> bool:
    try:
        parse_keep(text)
    except ValueError:
        return False
    return True


KEEP = Rule(WORDS, _is_keep)
