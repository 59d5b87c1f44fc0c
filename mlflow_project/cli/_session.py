"""What every verb does around its work: problems on the terminal, exit codes, and what it made at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from mlflow_project.runs import fail_adopted_run
from rlinf_isaac.errors import InvalidJob, Problem, RlinfIsaacError
from rlinf_isaac.preflight.findings import Findings

PROJECT = Path(__file__).resolve().parents[2]

stdout = Console(soft_wrap=True, highlight=False)
stderr = Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def verb_session() -> Iterator[None]:
    """Turn this project's errors into a message and an exit code: 2 for a job that cannot start, 1 for one that failed.

    Anything else is a bug and keeps its traceback (exit code 1).
    """
    handler = RichHandler(console=stderr, show_time=False, show_path=False, markup=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s")
    try:
        yield
    except RlinfIsaacError as error:
        fail_adopted_run(str(error))
        show_error(error)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt:
        stderr.print("interrupted; the same command goes on where this one stopped")
        raise SystemExit(130) from None


@contextmanager
def preflight() -> Iterator[Findings]:
    """Collect what a verb's checks find; afterwards show the warnings, and refuse the job if there are errors.

    Raises:
        InvalidJob: with all errors.
    """
    findings = Findings()
    with findings.collect():
        yield findings
    for problem in findings.warnings:
        show_problem(problem)
    findings.raise_errors()


def show_error(error: RlinfIsaacError) -> None:
    """Print an error: every problem with its cause and cure."""
    if not isinstance(error, InvalidJob):
        stderr.print(f"[bold red]error[/] {type(error).__name__}: ", end="")
        stderr.print(str(error), markup=False)
        return
    for problem in error.problems:
        show_problem(problem)


def show_problem(problem: Problem, console: Console = stderr) -> None:
    """Print one problem with its level, code, cause and cure."""
    colour = "bold red" if problem.level == "error" else "bold yellow"
    console.print(f"[{colour}]{problem.level}[/] [dim]{problem.code}[/] ", end="")
    console.print(problem.cause, markup=False)
    console.print("  [green]cure[/] ", end="")
    console.print(problem.cure, markup=False)
