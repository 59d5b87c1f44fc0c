"""The course of a training: what each iteration has shown, on disk line by line, and from which weights it began.

Iterations are counted on after a roll-back, so that no two of them share a number, a seed or a metric's step. Iteration
9 may begin from the weights of checkpoint 5; what was learned in 6 to 8 is then abandoned, and stays recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rlinf_isaac.ground import lines


@dataclass(frozen=True)
class Iteration:
    """What one iteration has shown. Number 0 is the evaluation of the start checkpoint.

    Attributes:
        number: number of the iteration.
        parent: the iteration whose weights played its episodes; usually `number` - 1.
        successes, episodes: of its training episodes, which explore.
        held_out: outcomes on the held-out seeds after its update, in their order; empty if it was not evaluated.
        kl: KL divergence from the policy that played, after the update; None if there was no update.
        clip_fraction: mean clip fraction of its minibatches; None as for `kl`.
        seconds: what it took.
        saved: whether it left a checkpoint (0: the start checkpoint).
        back_to: the checkpoint from which the next iteration begins, if this one was a collapse; else None.
        ended: why the training ended with this iteration before the last one: ``collapsed`` or ``target``; or empty.
        reason: the sentence that says why it went back or ended.
    """

    number: int
    parent: int
    successes: int = 0
    episodes: int = 0
    held_out: tuple[bool, ...] = ()
    kl: float | None = None
    clip_fraction: float | None = None
    seconds: float = 0.0
    saved: bool = False
    back_to: int | None = None
    ended: str = ""
    reason: str = ""

    def as_line(self) -> str:
        """One line of JSON; `parse` is its inverse."""
        return json.dumps({**asdict(self), "held_out": "".join("01"[each] for each in self.held_out)})


def parse(line: str) -> Iteration:
    """The inverse of `Iteration.as_line`."""
    values: dict[str, Any] = json.loads(line)
    return Iteration(**{**values, "held_out": tuple(each == "1" for each in values["held_out"])})


@dataclass(frozen=True)
class Checkpoint:
    """What is known of the weights after an iteration: all training episodes that they played, and their held-out
    outcomes (empty if there are none)."""

    number: int
    successes: int
    episodes: int
    held_out: tuple[bool, ...]


class Course:
    """All iterations of a training so far, in their order.

    Attributes:
        iterations: those that are recorded.
        gone: checkpoints that ``rl.keep`` has given up (`guard.give_up`).
        given_up_at: the newest checkpoint after which that was decided.
    """

    def __init__(self, iterations: list[Iteration] | None = None, gone: Iterable[int] = ()) -> None:
        self.iterations = list(iterations or [])
        self.gone, self.given_up_at = set(gone), 0

    def __iter__(self) -> Iterator[Iteration]:
        return iter(self.iterations)

    @property
    def rollbacks(self) -> list[Iteration]:
        """The iterations after which the training went back."""
        return [each for each in self if each.back_to is not None]

    @property
    def weights(self) -> int:
        """The iteration that left the weights from which the next one begins."""
        if not self.iterations:
            return 0
        last = self.iterations[-1]
        return last.number if last.back_to is None else last.back_to

    def line(self, number: int) -> list[int]:
        """The iterations that led to the weights after iteration `number`, from it back to the start (0)."""
        parents = {each.number: each.parent for each in self}
        found = [number]
        while number:
            # Of iterations that another release played nothing is recorded; they followed one another.
            number = parents.get(number, number - 1)
            found.append(number)
        return found

    def depth(self, number: int) -> int:
        """How many iterations led to the weights after iteration `number`."""
        return len(self.line(number)) - 1

    def abandoned(self, rollback: Iteration) -> list[int]:
        """The iterations whose learning was given up by a roll-back."""
        assert rollback.back_to is not None
        kept = set(self.line(rollback.back_to))
        return sorted(number for number in self.line(rollback.number) if number not in kept)

    def checkpoints(self) -> dict[int, Checkpoint]:
        """Number -> what is known, of the start checkpoint (0) and of all checkpoints that were saved."""
        found = {0: Checkpoint(0, 0, 0, ())}
        for each in self:
            if each.saved or each.number == 0:
                found[each.number] = Checkpoint(each.number, 0, 0, each.held_out)
        for each in self:
            if each.parent in found and each.number:
                seen = found[each.parent]
                counts = seen.successes + each.successes, seen.episodes + each.episodes
                found[each.parent] = replace(seen, successes=counts[0], episodes=counts[1])
        return found


class CourseLog:
    """The course of a training in a file, `Course.iterations` line by line; it survives kill -9."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def position(self) -> int:
        """The last iteration that a resumed training must not play again although it left no checkpoint: it was a
        collapse. 0 if there is none."""
        found = [each.number for each in map(parse, lines.read(self.path)) if _is_final(each)]
        return max(found, default=0)

    def rewind(self, start: int) -> Course:
        """Forget what came after iteration `start`, which is about to be repeated, and return the rest. A training that
        begins anew (0) measures its start anew as well."""
        kept = lines.rewind(self.path, lambda line: parse(line).number <= (start if start else -1))
        return Course([parse(line) for line in kept])

    def read(self, start: int) -> Course:
        """What `rewind` returns, for a process that leaves the file alone."""
        found = [parse(line) for line in lines.read(self.path)]
        return Course([each for each in found if start and each.number <= start])

    def append(self, iteration: Iteration) -> None:
        """Add an iteration; it is on disk when this returns."""
        lines.append(self.path, iteration.as_line())


def _is_final(each: Iteration) -> bool:
    return each.back_to is not None or each.ended == "collapsed"
