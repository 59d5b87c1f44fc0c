"""What every verb does around its work: problems on the terminal, exit codes, and what it made at the end."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.text import Text

from mlflow_project.cli._findings import grouped, short
from mlflow_project.cli._trouble import trouble_of
from mlflow_project.tracking.runs import fail_adopted_run
from mlflow_project.tracking.signals import Terminated
from mlflow_project.tracking.terminal import SafeConsole, escaped
from rlinf_isaac.ground.errors import InvalidJob, Problem, RlinfIsaacError
from rlinf_isaac.preflight.findings import Findings

_WIDEST = 2000
"""Columns of a table in a pipe."""

stdout = SafeConsole(soft_wrap=True)
stderr = SafeConsole(stderr=True, soft_wrap=True)


class _PlainHandler(logging.Handler):
    """Prints log records where there is no terminal, to whose width rich would fill them up with spaces."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the level and the message."""
        stderr.print(f"{record.levelname:<8} {self.format(record)}", lines=True)


@contextmanager
def verb_session() -> Iterator[None]:
    """Turn errors into a message and an exit code: 2 for a job that cannot start, 1 for one that failed.

    That are this project's own errors, and what machine, disk, network and memory refuse. Anything else is a bug and
    keeps its traceback (exit code 1).
    """
    handler: logging.Handler = _PlainHandler()
    if stderr.is_terminal:
        handler = RichHandler(console=stderr, show_time=False, show_path=False, markup=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s")
    try:
        yield
        sys.stdout.flush()
    except RlinfIsaacError as error:
        fail_adopted_run(str(error))
        show_error(error)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt:
        stderr.print("interrupted; the same command goes on where this one stopped")
        raise SystemExit(130) from None
    except Terminated as end:
        stderr.print(f"ended by {end}; the same command goes on where this one stopped")
        raise
    except BrokenPipeError:
        stdout.on_broken_pipe()
    except Exception as error:
        problem = trouble_of(error)
        if problem is None:
            raise
        fail_adopted_run(str(problem))
        show_problem(problem)
        raise SystemExit(1) from error


@contextmanager
def preflight() -> Iterator[Findings]:
    """Collect what a verb's checks find; afterwards show the warnings, and refuse the job if there are errors.

    Raises:
        InvalidJob: with all errors.
    """
    findings = Findings()
    with checking(findings):
        yield findings
    for problem in grouped(findings.warnings):
        show_problem(problem)
    findings.raise_errors()


@contextmanager
def checking(findings: Findings) -> Iterator[None]:
    """Note what ends the block early, as `Findings.collect`, and what machine, disk or network refuse, too."""
    try:
        with findings.collect():
            yield
    except Exception as error:
        problem = None if isinstance(error, BrokenPipeError) else trouble_of(error, checking=True)
        if problem is None:
            raise
        findings.add([problem])


def show_error(error: RlinfIsaacError) -> None:
    """Print an error: every problem with its cause and cure."""
    if isinstance(error, InvalidJob):
        for problem in grouped(error.problems):
            show_problem(problem)
        return
    stderr.print(Text.assemble(("error", "bold red"), f" {type(error).__name__}: ", _block(str(error))))


def show_problem(problem: Problem, console: Console = stderr) -> None:
    """Print one problem with its level, code, cause and cure.

    Where a cause or a cure has several lines the others begin with a bar: a name that holds a newline cannot pass for
    a line of ours.
    """
    colour = "bold red" if problem.level == "error" else "bold yellow"
    console.print(Text.assemble((problem.level, colour), " ", (problem.code, "dim"), " ", _block(short(problem.cause))))
    console.print(Text.assemble("  ", ("cure", "green"), " ", _block(problem.cure)))


def print_json(value: Any) -> None:
    """Print one JSON object on stdout, and nothing in it that acts on a terminal."""
    click.echo(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))


def print_wide(shown: RenderableType) -> None:
    """Print a table or a frame on stdout as wide as the terminal; into a pipe as wide as it is, and nothing is cut."""
    if stdout.is_terminal:
        stdout.print(shown, soft_wrap=False)
        return
    wide = SafeConsole(file=io.StringIO(), width=_WIDEST)
    wide.print(shown, soft_wrap=False)
    click.echo("\n".join(line.rstrip() for line in wide.file.getvalue().splitlines()))  # type: ignore[attr-defined]


def _block(text: str) -> str:
    return escaped(text, lines=True).replace("\n", "\n  | ")
