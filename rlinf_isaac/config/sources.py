"""The values of a job config, each with its origin: the schema, a preset, a checkpoint, or the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlinf_isaac.config import build_config, flatten, keys_of, load_config, preset_values
from rlinf_isaac.config.reads import acts
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.reading import read_json

SCHEMA = "default"
COMMAND_LINE = "command line"
_BUNDLE_CONFIG = "config.json"
MAX_BYTES = 10_000_000
"""Largest ``config.json`` of a checkpoint that is read."""


@dataclass(frozen=True)
class Sourced:
    """A config with origins.

    Attributes:
        config: the config; None where only some of its values are known, as of a run.
        values: key -> value.
        origins: key -> in words where the value comes from.
    """

    config: JobConfig | None
    values: dict[str, Any]
    origins: dict[str, str]


def read_source(name: str, overrides: Sequence[str] = ()) -> Sourced:
    """The config of a preset's name, of a YAML file, or of a checkpoint's directory, with overrides.

    Raises:
        InvalidJob: there is no such preset, or a value is wrong.
        OSError, ValueError: the checkpoint's ``config.json`` cannot be read.
    """
    file = Path(name) / _BUNDLE_CONFIG
    if not name.endswith((".yaml", ".yml")) and file.is_file():
        return of_values((read_json(file, MAX_BYTES).get("job") or {}), f"checkpoint {name}", overrides)
    given = {key: origin for key, (_, origin) in preset_values(name).items()}
    return _sourced(load_config(name, overrides), given, overrides)


def of_values(
    values: Mapping[str, Any], origin: str, overrides: Sequence[str] = (), *, complete: bool = True
) -> Sourced:
    """The config of nested or flat plain values that were recorded, with overrides.

    Args:
        values: what was recorded.
        origin: of these values, in words.
        overrides: ``section.key=value`` items.
        complete: whether they are all that a job needs; otherwise the values stay as they are.

    Raises:
        InvalidJob: a value is wrong, or missing although they should be `complete`.
    """
    if not complete:
        flat = flatten(dict(values))
        return Sourced(None, flat, dict.fromkeys(flat, origin))
    given = dict.fromkeys(flatten(dict(values)), origin)
    return _sourced(build_config(dict(values), origin, overrides), given, overrides)


def read_keys(form: str, sourced: Sourced) -> list[str]:
    """The keys that a form of a verb (`reads.FORMS`) reads in a job of this config."""
    config = sourced.config
    return [key for key in sourced.values if config is None or acts(form, key, config)]


def _sourced(config: JobConfig, given: Mapping[str, str], overrides: Sequence[str]) -> Sourced:
    from rlinf_isaac.config import known_keys

    changed = {key for item in overrides for key in keys_of(item)}
    flat = flatten(config)
    values = {key: flat[key] for key in known_keys() if key in flat}
    origins = {key: COMMAND_LINE if key in changed else given.get(key, SCHEMA) for key in values}
    return Sourced(config, values, origins)
