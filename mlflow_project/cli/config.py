"""`config`: the values that a job would have and where each comes from, or how two configs differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import yaml

from mlflow_project.cli import _options as options
from mlflow_project.cli import _types as types
from mlflow_project.cli._command import spelt
from mlflow_project.cli._session import preflight, print_json, stdout, verb_session
from rlinf_isaac.config.sources import Sourced, read_keys
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.jobs.options import AUTO, to_overrides

EXAMPLE = """\b
Example:
  rlinf-isaac config show sft --preset pi05 --overrides sft.lr=1e-5
  rlinf-isaac config show rl --format json
  rlinf-isaac config diff tiny pi05
  rlinf-isaac config diff result/isaaclab_openpi/sft/tiny-0123abcd/checkpoints/1200 mine.yaml
  mlflow run . -e config -P action=show -P what=sft"""

ACTIONS = ("show", "diff")


@click.command("config", epilog=EXAMPLE)
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("what", nargs=-1)
@options.option("--preset", "show: preset, YAML file, bundle or run whose values are shown.", "tiny", types.PRESET)
@options.task
@options.overrides
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "yaml", "json"]),
    default="text",
    show_default=True,
    help="text says where each value comes from; yaml is a preset that --preset takes; json has values and origins.",
)
def command(action: str, what: tuple[str, ...], preset: str, task: str, overrides: str, form: str) -> None:
    """Show the values of a job's config, or how two configs differ. Starts nothing.

    show [VERB]: all keys, or those that VERB reads, with the value that a job of this --preset and these --overrides
    has, and whether it comes from the schema, the preset or the command line.

    diff A B: the keys in which two configs differ. A and B are presets, YAML files, checkpoints, or runs of sft, eval
    or rl by their ids.
    """
    with verb_session():
        names = _names(what)
        if action == "diff":
            _diff(names, form)
            return
        verb = _verb(names)
        with preflight() as findings:
            changes = to_overrides({"task": task}, {"task": "env.task"}, overrides)
            sourced = _read(preset, changes)
            if verb is not None:
                from rlinf_isaac.config.reads import check_overrides

                findings.add(check_overrides(verb, changes, sourced.config))
        shown = sourced.values if verb is None else {key: sourced.values[key] for key in read_keys(verb, sourced)}
        _show(shown, sourced.origins, form)


def _show(values: dict[str, Any], origins: dict[str, str], form: str) -> None:
    if form == "json":
        print_json({key: {"value": value, "from": origins[key]} for key, value in values.items()})
        return
    if form == "yaml":
        click.echo(yaml.safe_dump(_nested(values), sort_keys=False, allow_unicode=True), nl=False)
        return
    width = max(map(len, values), default=0)
    told = {key: spelt(value) for key, value in values.items()}
    column = min(max(map(len, told.values()), default=0), 40)
    for key, text in told.items():
        stdout.print(f"{key:<{width}}  {text:<{column}}  {origins[key]}")


def _diff(names: Sequence[str], form: str) -> None:
    if len(names) != 2:
        cause = f"config diff takes two configs, {len(names)} are given"
        raise InvalidJob.of("bad-options", cause, "name two presets, YAML files, checkpoints or run ids")
    with preflight() as findings:
        pair = []
        for name in names:
            with findings.collect():
                pair.append(_read(name, [], complete=False).values)
    left, right = pair
    keys = [key for key in {**left, **right} if left.get(key, "-") != right.get(key, "-")]
    if form == "json":
        print_json({key: {"a": left.get(key), "b": right.get(key)} for key in keys})
        return
    if form == "yaml":
        click.echo(
            yaml.safe_dump(_nested({key: right[key] for key in keys if key in right}), sort_keys=False), nl=False
        )
        return
    width = max(map(len, keys), default=0)
    for key in keys:
        stdout.print(f"{key:<{width}}  {spelt(left.get(key, '-'))} -> {spelt(right.get(key, '-'))}")
    stdout.print(f"{len(keys)} of {len({**left, **right})} keys differ")


def _names(what: Sequence[str]) -> list[str]:
    """The words, which MLproject passes as one, or as `none`."""
    words = [word for text in what for word in text.replace(",", " ").split()]
    return [] if words == ["none"] else words


def _verb(names: Sequence[str]) -> str | None:
    from rlinf_isaac.config.reads import FORMS

    if not names:
        return None
    verb = " ".join(names)
    if verb not in FORMS:
        cause = f"{verb!r} is no verb that reads a config"
        cure = f"one of {', '.join(form for form in FORMS if ' ' not in form)}"
        raise InvalidJob.of("bad-options", cause, cure)
    return verb


def _read(name: str, changes: Sequence[str], *, complete: bool = True) -> Sourced:
    from mlflow_project.vocabulary import RUN_ID
    from rlinf_isaac.config.sources import of_values, read_source

    if RUN_ID.fullmatch(name):
        from mlflow_project.tracking.run_config import config_of_run

        return of_values(config_of_run(name), f"run {name[:12]}", changes, complete=complete)
    return read_source("tiny" if name == AUTO else name, changes)


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    grown: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        place = grown
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return grown
