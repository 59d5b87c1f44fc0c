"""Keywords of the Python API as the settings of a verb: the verb's own options, defaults and types."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.tracking.labels import Labels, labels, read_labels
from rlinf_isaac.ground.errors import InvalidJob, Problem

if TYPE_CHECKING:
    from mlflow_project.cli._followers import Followers
    from rlinf_isaac.preflight.findings import Findings


def settings_of(verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with which a verb is called whose options are the keywords `given`; the others have their defaults.

    Args:
        verb: the verb.
        given: name of an option -> its value. Numbers and paths are written as on the command line; a list becomes
            words with commas, a dict ``key=value`` pairs; None is as good as leaving it out.

    Raises:
        InvalidJob: an option does not exist (``unknown-option``) or has a value that it cannot have (``bad-option``).
    """
    command: click.Command = importlib.import_module(f"mlflow_project.cli.{verb}").command
    parameters = {parameter.name: parameter for parameter in command.params}
    problems, words, arguments = [], [], []
    for name, value in given.items():
        if value is None:
            continue
        parameter = parameters.get(name)
        if parameter is None:
            near = difflib.get_close_matches(name, [str(each) for each in parameters], n=1)
            cure = f"did you mean {near[0]}?" if near else f"`rlinf-isaac {verb} --help` lists the options"
            problems.append(Problem("unknown-option", f"{verb} has no option {name!r}", cure))
        elif isinstance(parameter, click.Argument):
            arguments.append(written(value))
        else:
            words.append(f"{parameter.opts[0]}={written(value)}")
    if problems:
        raise InvalidJob(problems)
    try:
        return dict(command.make_context(verb, [*words, "--", *arguments]).params)
    except click.ClickException as error:
        raise InvalidJob.of("bad-option", f"{verb}: {error.format_message()}", "correct the value") from error


@dataclass(frozen=True)
class Company:
    """What a call says about its run rather than about the job: its name, experiment and tags, whom it tells how it
    ends, and to which further trackers it reports."""

    labels: Labels
    followers: Followers

    @classmethod
    def taken_from(cls, settings: dict[str, Any]) -> Company:
        """The company that the settings of a verb name; their options are taken out.

        Raises:
            InvalidJob: a name or a tag is not one that MLflow takes.
        """
        from mlflow_project.cli._followers import Followers

        words = (settings.pop(option, "auto") for option in ("run_name", "experiment"))
        name, experiment = (None if text == "auto" else text for text in words)
        chosen = read_labels(name, experiment, settings.pop("tag", ()))
        return cls(chosen, Followers(settings.pop("notify", ()), settings.pop("report_to", "none")))

    def check(self, findings: Findings) -> None:
        """Note what keeps them from working."""
        self.followers.check(findings)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let the run of the block have them."""
        with labels(self.labels), self.followers.at_work():
            yield


def written(value: Any) -> str:
    """A value as it stands on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{key}={_inside(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(written, value))
    path = getattr(value, "path", None)  # a Run
    return str(path if isinstance(path, Path) else value)


def _inside(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else written(value)
