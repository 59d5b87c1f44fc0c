"""Job configs: a preset YAML, then overrides, checked against the structured schema. All problems at once.

config = load_config("tiny", ["sft.lr=3e-4", "eval.episodes=20"])
"""

from __future__ import annotations

import difflib
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache, lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import with_tasks
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.ground.yaml_text import check_yaml_text, read_yaml_text
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.suite import suite_from

MAX_OVERRIDES = 20_000
"""Characters. A command line with more is no work of a person, and a preset has room for more."""
LONGEST_KEY = 200
PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Names of the presets that ship with the project."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def split_overrides(text: str | Iterable[str]) -> list[str]:
    """``"a.b=1, c=[2,3] d='x,y'"`` -> ``["a.b=1", "c=[2,3]", "d='x,y'"]``; brackets and quotes keep their commas.

    ``none`` and ``auto`` (MLproject's way to say "no value") give an empty list.
    """
    items: list[str] = []
    for part in [text] if isinstance(text, str) else text:
        if len(part) > MAX_OVERRIDES:
            cause = f"config overrides of {len(part)} characters: {part[:40]!r}..."
            raise InvalidJob.of("bad-override", cause, "write them into a preset, and name its file with --preset")
        if part.strip().lower() not in ("", "none", "auto"):
            items += re.findall(r"(?:\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"|[^\s,])+", part)
    return items


def load_config(preset: str, overrides: Sequence[str] = ()) -> JobConfig:
    """The job config of a preset with overrides applied.

    Args:
        preset: a shipped preset's name, or the path of a YAML file with the same keys. Its key ``base`` names a shipped
            preset whose values hold where it has none.
        overrides: ``section.key=value`` items.

    Raises:
        InvalidJob: unknown preset, unknown key (with the nearest known one), value of a wrong type, missing value.
    """
    values, origin = _read_preset(preset)
    if (base := values.pop("base", None)) is not None:
        values = flatten(_read_preset(str(base))[0]) | flatten(values)
    return build_config(values, origin, overrides)


def preset_values(preset: str) -> dict[str, tuple[Any, str]]:
    """Key -> the value that a preset, or the one that it is based on, has for it, and ``preset NAME``.

    The values are not checked, as those of `load_config` are, which takes ten times as long.

    Raises:
        InvalidJob: there is no such preset, or it is not readable.
    """
    values, _ = _read_preset(preset)
    base = values.pop("base", None)
    below = {} if base is None else flatten(_read_preset(str(base))[0])
    named = {key: (value, f"preset {base}") for key, value in below.items()}
    return named | {key: (value, f"preset {preset}") for key, value in flatten(values).items()}


def _read_preset(preset: str) -> tuple[dict[str, Any], str]:
    """Its nested values, and its file."""
    path = Path(preset) if preset.endswith((".yaml", ".yml")) else PRESETS / f"{preset}.yaml"
    if not path.is_file():
        names = preset_names()
        near = difflib.get_close_matches(_letters(preset), map(_letters, names), n=1, cutoff=0.5)
        meant = f"did you mean {next(name for name in names if _letters(name) == near[0])}? " if near else ""
        listed = ", ".join(names)
        cure = f"{meant}The presets are {listed}; a YAML file of your own ends with .yaml"
        raise InvalidJob.of("unknown-preset", f"there is no preset '{preset}'", cure)
    try:
        values = _parsed(read_yaml_text(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        first = " ".join(str(error).split())[:300]
        raise InvalidJob.of("bad-preset", f"{path} is not readable YAML: {first}", "mend it") from error
    if not isinstance(values, dict):
        raise InvalidJob.of("bad-preset", f"{path} holds no mapping", "start from a copy of a shipped preset")
    return {str(key): value for key, value in values.items()}, str(path)


@lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    """What a YAML text says; not to be changed."""
    return OmegaConf.to_container(OmegaConf.load(StringIO(text)))


@cache
def _schema() -> bytes:
    """A config without values, pickled: omegaconf takes thirty times as long to make one as pickle to read it."""
    return pickle.dumps(OmegaConf.structured(JobConfig))


def _letters(name: str) -> str:
    """The letters and digits of a name, by which ``pi0.5`` is ``pi05``."""
    return re.sub("[^a-z0-9]", "", name.lower())


def build_config(values: Any, origin: str, overrides: Sequence[str] = ()) -> JobConfig:
    """A job config from nested plain values (a preset, or the ``job`` of a checkpoint) and overrides.

    Raises:
        InvalidJob: as `load_config`; `origin` is named in the messages.
    """
    config = pickle.loads(_schema())
    described, several = ((values if isinstance(values, Mapping) else {}).get(key) or {} for key in ("task", "suite"))
    if isinstance(values, Mapping):
        values = {key: value for key, value in values.items() if key not in ("task", "suite")}
        described = from_dict(described, origin).as_dict() if described else {}
        several = suite_from(several, origin).as_dict() if several else {}
    problems = _apply(config, _flatten(values), origin)
    pairs: list[tuple[str, Any]] = []
    for item in overrides:
        try:
            pairs += _read_override(item)
        except InvalidJob as error:
            problems += error.problems
    problems += _apply(config, pairs, "the command line")
    if not problems:
        problems = [
            Problem("missing-value", f"{key} has no value in {origin}", "add it there")
            for key in sorted(key for key, value in _flatten(OmegaConf.to_container(config)) if value == MISSING)
        ]
    if problems:
        raise InvalidJob(problems)
    job = OmegaConf.to_object(config)
    assert isinstance(job, JobConfig)
    return with_tasks(replace(job, task=described, suite=several), frozenset(key for key, _ in pairs))


def flatten(config: Any) -> dict[str, Any]:
    """A (nested) dataclass or dict as ``{"sft.lr": 0.001, ...}``."""
    values = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    return dict(_flatten(values))


@cache
def known_keys() -> tuple[str, ...]:
    """Every key that an override may set."""
    return tuple(_schema_keys(JobConfig(), ""))


@cache
def _sections() -> frozenset[str]:
    """What the known keys lie in, at any depth."""
    parts = [key.split(".") for key in known_keys()]
    return frozenset(".".join(each[:depth]) for each in parts for depth in range(1, len(each)))


def keys_of(override: str) -> list[str]:
    """The keys that an override sets, existing or not: ``rl={lr: 1e-5, epochs: 2}`` sets two. None of an unreadable."""
    try:
        return [key for key, _ in _read_override(override)]
    except InvalidJob:
        return []


def _read_override(item: str) -> list[tuple[str, Any]]:
    """Key and value of ``section.key=value``, or of several in braces."""
    key, separator, value = item.partition("=")
    if not separator or not key or len(key) > LONGEST_KEY:
        raise InvalidJob.of("bad-override", f"'{item}' is not KEY=VALUE", "write e.g. sft.lr=3e-4")
    try:
        check_yaml_text(value)
        return _flatten(OmegaConf.to_container(OmegaConf.from_dotlist([item])))
    except (ValueError, YAMLError, OmegaConfBaseException) as error:
        cause = f"'{item}' cannot be read: {' '.join(str(error).split())[:300]}"
        raise InvalidJob.of("bad-override", cause, "write e.g. sft.lr=3e-4; put quotes round a text") from error


def _apply(config: Any, pairs: Iterable[tuple[str, Any]], origin: str) -> list[Problem]:
    problems = []
    known, sections = set(known_keys()), _sections()
    for key, value in pairs:
        if key in sections:
            if value is not None:  # an empty section is what a preset may have
                cause = f"{key}={value} ({origin}): {key} is a section"
                problems.append(Problem("bad-value", cause, f"set its keys, as in {_first_key(known, key)}=..."))
            continue
        if key not in known:
            problems.append(Problem("unknown-key", f"'{key}' ({origin}) is not a config key", _suggest(key, known)))
            continue
        if _interpolates(value):  # would read environment variables, secrets included, into params
            cause = f"{key}={value} ({origin}) is an interpolation"
            problems.append(Problem("interpolation", cause, "write the value itself"))
            continue
        if _is_out_of_range(value):
            cause = f"{key} ({origin}) has more than 64 bits"
            problems.append(Problem("bad-value", cause, "give a smaller number"))
            continue
        try:
            OmegaConf.update(config, key, value)
        except OmegaConfBaseException:
            problems.append(_wrong_type(key, value, origin))
    return problems


def _wrong_type(key: str, value: Any, origin: str) -> Problem:
    from rlinf_isaac.config.keys import key_of, plain_number

    wanted = key_of(key)
    assert wanted is not None  # it is a known one
    cure = f"write {wanted.sentence}"
    if wanted.type in (int, float) and (number := plain_number(str(value))):
        cure = f"write {key}={number}"
    noun = wanted.sentence.partition(" greater")[0].partition(" 0 or")[0].partition(" between")[0]
    return Problem("bad-value", f"{key}={value} ({origin}): {str(value)!r} is not {noun}", cure)


def _interpolates(value: Any) -> bool:
    """Whether omegaconf would look something up for it, itself or anything within it."""
    if isinstance(value, dict):
        return any(_interpolates(each) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple):
        return any(map(_interpolates, value))
    return isinstance(value, str) and "${" in value


def _is_out_of_range(value: Any) -> bool:
    """Whether a number is larger than any that is computed with here: 64 bits, as in numpy and torch."""
    if isinstance(value, list | tuple):
        return any(map(_is_out_of_range, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _first_key(known: set[str], section: str) -> str:
    return min(name for name in known if name.startswith(f"{section}."))


def _suggest(key: str, known: set[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
    section = key.rpartition(".")[0]
    siblings = sorted(name for name in known if section and name.rpartition(".")[0] == section)
    return f"did you mean {near[0]}?" if near else f"known keys: {', '.join(siblings or sorted(known))}"


def _flatten(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in (values or {}).items():
        pairs += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return pairs


def _schema_keys(instance: Any, prefix: str) -> Iterable[str]:
    for field in fields(instance):
        value = getattr(instance, field.name)
        if isinstance(value, dict):  # the description of the task, which has keys of its own
            continue
        if is_dataclass(value):
            yield from _schema_keys(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"
