"""What a preflight has found so far: all problems at once, not only the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rlinf_isaac.ground.errors import InvalidJob, Problem


class Findings:
    """Collects the problems of many checks.

        findings = Findings()
        with findings.collect():
            config = load_config(preset)
        findings.raise_errors()

    Attributes:
        problems: errors and warnings, in the order in which they were found, each once.
    """

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self.problems: list[Problem] = []
        self.add(problems)

    def add(self, problems: Iterable[Problem]) -> None:
        """Note problems, leaving out those that another check has reported in the same words."""
        self.problems += [problem for problem in dict.fromkeys(problems) if problem not in self.problems]

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Note the problems of an `InvalidJob` that ends the block, and go on after the block."""
        try:
            yield
        except InvalidJob as error:
            self.add(error.problems)

    @property
    def errors(self) -> list[Problem]:
        """The problems that refuse the job."""
        return [problem for problem in self.problems if problem.level == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """The problems that are shown while the job goes on."""
        return [problem for problem in self.problems if problem.level == "warning"]

    def raise_errors(self) -> None:
        """Raise `InvalidJob` with all errors, if there are any."""
        if self.errors:
            raise InvalidJob(self.errors)
