"""The command of a verb that has a job config: its help says the defaults of the preset, and what a value may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from mlflow_project.cli._types import Text
from rlinf_isaac.config import flatten, preset_values
from rlinf_isaac.config.keys import Key, key_of
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.jobs.options import AUTO

_WORDS = "rlinf_isaac.words"
_DEFAULT = "[default: auto]"
DEFAULT_PRESET = "tiny"


class JobCommand(click.Command):
    """A command whose options stand for config keys.

    Args:
        keys: option -> config key, as the check of the job takes them.
    """

    def __init__(self, *arguments: Any, keys: Mapping[str, str], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.keys = keys
        for each in self.params:
            key = self._key(each)
            if key is not None and each.type is click.STRING:
                choices = key.choices
                each.type = Text(key.metavar, lambda context, typed, choices=choices: choices)  # type: ignore[misc]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, and remembers the words for the help, which is printed before options have values."""
        ctx.meta[_WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, each with the default of the preset that is given or, without one, of `DEFAULT_PRESET`."""
        preset, values = _values(ctx.meta.get(_WORDS, ()))
        records = []
        for each in self.get_params(ctx):
            record = each.get_help_record(ctx)
            if record is not None:
                records.append((record[0], self._told(each, record[1], preset, values)))
        with formatter.section("Options"):
            formatter.write_dl(records)

    def _key(self, parameter: click.Parameter) -> Key | None:
        name = self.keys.get(parameter.name or "")
        return None if name is None else key_of(name)

    def _told(self, parameter: click.Parameter, help: str, preset: str, values: Mapping[str, Any]) -> str:
        key = self._key(parameter)
        if key is None:
            return help
        limits = f"; {key.range}" if key.range else ""
        value = values.get(key.name, AUTO)
        if value == AUTO:
            return help.replace(_DEFAULT, f"[default: auto{limits}]")
        return help.replace(_DEFAULT, f"[default: {spelt(value)}, preset {preset}{limits}]")


def spelt(value: Any) -> str:
    """A value as one types it: ``1e-3``, ``true``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values(words: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
    """The preset that the words of a command name, and the values of its keys; none where there is no such preset."""
    preset = _value(words, "--preset")
    chosen = DEFAULT_PRESET if preset in (None, AUTO) else str(preset)
    try:
        of_preset = {key: value for key, (value, _) in preset_values(chosen).items()}
    except (InvalidJob, OSError):
        return chosen, {}
    return chosen, flatten(JobConfig()) | of_preset


def _value(words: Sequence[str], option: str) -> str | None:
    for position, word in enumerate(words):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option:
            return next(iter(words[position + 1 : position + 2]), None)
    return None
