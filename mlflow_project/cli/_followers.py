"""The options of what works beside a verb: ``--notify`` and ``--report-to``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from rlinf_isaac.preflight.findings import Findings

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Followers:
    """What a person has chosen to work beside a verb.

    Attributes:
        notify: the values of ``--notify``.
        report_to: the value of ``--report-to``.
    """

    notify: tuple[str, ...]
    report_to: str

    def check(self, findings: Findings) -> None:
        """Note what keeps them from working."""
        from mlflow_project.notify import addresses
        from mlflow_project.reporting import names

        findings.add(addresses.problems(self.notify))
        findings.add(names.problems(self.report_to))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let the tracked run of the block have them."""
        from mlflow_project.notify import addresses
        from mlflow_project.reporting import names
        from mlflow_project.tracking.followers import Follower, followed_by

        chosen: list[Follower] = []
        if targets := names.chosen(self.report_to):
            from mlflow_project.reporting.reporter import Reporter

            chosen.append(Reporter(targets))
        if words := addresses.chosen(self.notify):
            from mlflow_project.notify.notifier import Notifier

            chosen.append(Notifier([addresses.parse(text) for text in words]))
        with followed_by(*chosen):
            yield


def followers(command: Command) -> Command:
    """Add the options, and pass their values to the command as the one argument `followers`."""

    @wraps(command)
    def with_followers(*args: Any, notify: tuple[str, ...], report_to: str, **settings: Any) -> Any:
        return command(*args, followers=Followers(notify, report_to), **settings)

    report = click.option(
        "--report-to",
        default="auto",
        show_default=True,
        help="Further trackers: tensorboard, wandb, or both with a comma. auto: what RLINF_ISAAC_REPORT_TO says.",
    )
    notify = click.option(
        "--notify",
        multiple=True,
        default=("auto",),
        show_default=True,
        help="URL or command that is told of the end, of failure, divergence and collapse; may be given several times. "
        "auto: what RLINF_ISAAC_NOTIFY says.",
    )
    return notify(report(with_followers))  # type: ignore[return-value]
