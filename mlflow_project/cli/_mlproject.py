"""Prints the file MLproject, whose entry points are made of the verbs' options. After a change of an option:

python -m mlflow_project.cli._mlproject > MLproject
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import click
import yaml

from mlflow_project.cli import TERMINAL_VERBS, VERBS, cli
from mlflow_project.cli._options import OF_THE_TERMINAL

HEAD = """\
# Printed by `python -m mlflow_project.cli._mlproject`, from the options of the verbs.
name: rlinf-isaac

# Placeholders stand bare: MLflow quotes every value itself, and quotes of ours would re-open shell injection.
# `conda.yaml` lists pip packages only, so that --env-manager uv and virtualenv read it, too. With --env-manager local,
# what is installed is used.
conda_env: conda.yaml

entry_points:
"""
WIDTH = 120


def entry_point(verb: str, command: click.Command) -> Iterator[str]:
    """The lines of a verb. Every parameter is a string: MLflow checks no other type, and a `path` would be relative to
    the caller."""
    yield f"  {verb}:"
    yield "    parameters:"
    words = [f"python -m mlflow_project.cli {verb}"]
    for each in command.params:
        if each.name in OF_THE_TERMINAL:
            continue
        default = "" if each.required else f", default: {_quoted(_default(each))}"
        yield f"      {_quoted(str(each.name))}: {{type: string{default}}}"  # yes is no string in YAML
        # An option stays on one line with its value, an argument has no name in front of it.
        words.append(f"{each.opts[0]} {{{each.name}}}" if isinstance(each, click.Option) else f"{{{each.name}}}")
    joined = [word.replace(" ", "\0") for word in words]
    lines = textwrap.wrap(" ".join(joined), WIDTH - 6, break_long_words=False, break_on_hyphens=False)
    yield "    command: >-"
    yield from (f"      {line}".replace("\0", " ") for line in lines)


def mlproject() -> str:
    """The text of MLproject."""
    context = click.Context(cli)
    commands = {verb: cli.get_command(context, verb) for verb in VERBS if verb not in TERMINAL_VERBS}
    return HEAD + "".join(f"{line}\n" for verb, each in commands.items() if each for line in entry_point(verb, each))


def _default(parameter: click.Parameter) -> str:
    """What the parameter is where nobody gives it; an argument that takes any number of words takes `none`."""
    if parameter.multiple:  # one value there: MLproject passes an option once
        return " ".join(parameter.default)  # type: ignore[arg-type]
    return "none" if parameter.nargs == -1 else str(parameter.default)


def _quoted(text: str) -> str:
    """The text as YAML reads it back: 8000 and true are strings only in quotes."""
    return text if yaml.safe_load(text) == text else f'"{text}"'


if __name__ == "__main__":
    click.echo(mlproject(), nl=False)
