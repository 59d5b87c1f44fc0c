"""Collects the problems of a dataset. A fault that a thousand episodes share becomes one problem, not a thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, ParamSpec, TypeVar

from rlinf_isaac.ground.errors import DatasetError, Problem

SHOWN = 5  # number of items that a message shows of a long list
Level = Literal["error", "warning"]
P = ParamSpec("P")
T = TypeVar("T")


class FoldedFindings:
    """Collects problems; those with the same code and cure are folded into one that names the first few of them."""

    def __init__(self) -> None:
        self._causes: dict[tuple[str, str, Level], list[str]] = {}

    def add(self, code: str, cause: str, cure: str, level: Level = "error") -> None:
        """Note one fault."""
        self._causes.setdefault((code, cure, level), []).append(cause)

    def extend(self, problems: Iterable[Problem], level: Level | None = None) -> None:
        """Note problems that were found elsewhere, as `level` if that is given."""
        for problem in problems:
            self.add(problem.code, problem.cause, problem.cure, level or problem.level)

    def attempt(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Calls `function` and returns its result. If it raises a DatasetError, notes the problems and returns None."""
        try:
            return function(*args, **kwargs)
        except DatasetError as error:
            self.extend(error.problems)
            return None

    def problems(self) -> list[Problem]:
        """The folded problems: errors first, otherwise in the order in which their kinds were found."""
        folded = [Problem(code, _fold(causes), cure, level) for (code, cure, level), causes in self._causes.items()]
        return sorted(folded, key=lambda problem: problem.level != "error")


def first_few(items: Sequence[object]) -> str:
    """The first `SHOWN` items as text; of a longer list also the number of all items."""
    return ", ".join(map(str, items[:SHOWN])) + (f", ... ({len(items)} in all)" if len(items) > SHOWN else "")


def _fold(causes: list[str]) -> str:
    more = [f"... ({len(causes)} in all)"] if len(causes) > SHOWN else []
    return "\n  ".join([*causes[:SHOWN], *more])
