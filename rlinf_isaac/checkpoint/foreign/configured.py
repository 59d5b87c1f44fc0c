"""The job config of a foreign checkpoint: a preset, overridden by the checkpoint's own files, then by the person."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rlinf_isaac.checkpoint.facts import ALL, FACTS, as_in_job, spell
from rlinf_isaac.checkpoint.foreign.said import Said
from rlinf_isaac.config import build_config, flatten, load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import InvalidJob, Problem, TokenizerError
from rlinf_isaac.pi0.tokenizer import load_tokenizer

EXECUTED = ("policy.action_chunk", "policy.denoise_steps", "policy.asset_id")
"""Keys that decide how a policy is run. A person may change them; the other keys are fixed by the training."""
PALIGEMMA_TOKENS = 257_152
"""Number of pieces of PaliGemma's tokenizer; no other known SentencePiece model has as many."""


_Equal = Callable[[str, Any, Any], bool]


@dataclass(frozen=True)
class Configured:
    """A config, and where its values come from.

    Attributes:
        config: the job that trained the checkpoint, as far as it is known.
        lines: the settings that were taken from the checkpoint, for people.
        stated: names of facts whose value comes from the checkpoint's files.
        assumed: facts for which a person gave a value, with these values.
    """

    config: JobConfig
    lines: tuple[str, ...]
    stated: frozenset[str]
    assumed: Mapping[str, Any]


def configure(
    preset: str | Mapping[str, Any],
    said: Said,
    overrides: Sequence[str] = (),
    assumptions: Mapping[str, Any] | None = None,
    known: Collection[str] = (),
) -> Configured:
    """Build the config from preset, checkpoint and person.

    Args:
        preset: name of a preset, or the nested values of a job.
        said: the settings that the checkpoint's files record.
        overrides: overrides by the person. If the files do not record a fact, an override of its key is an assumption.
        assumptions: from `facts.parse_assumptions`. ``all`` assumes the config's value for every fact that is not
            known otherwise.
        known: facts that are known from another source, such as the dataset it was trained on.

    Raises:
        InvalidJob: an override or an assumption contradicts the files, or the config has an error.
    """
    named = {name: value for name, value in (assumptions or {}).items() if name != ALL}
    keys = {name: fact.key for name, fact in FACTS.items() if fact.key is not None}
    assumed = {keys[name]: value for name, value in named.items() if name in keys}
    config = _build(preset, [*_spelled(said.values), *_spelled(assumed), *overrides])
    values = flatten(config)
    equal = partial(means_the_same, pi05=config.model.pi05)
    _refuse_contradictions(said, values, assumed, equal)
    overridden = {item.partition("=")[0] for item in overrides}
    stated = {name for name, key in keys.items() if key in said.certain and equal(key, values[key], said.values[key])}
    if said.tokenizer and _is_paligemma(config):
        stated.add("tokenizer")
    own = {name: values[key] for name, key in keys.items() if key in overridden} | named
    if ALL in (assumptions or {}):
        others = [name for name in FACTS if name not in own and name not in stated and name not in known]
        asked = [name for name in others if config.model.pi05 or name != "discrete_state_input"]
        own = as_in_job(asked, config) | own
    base = flatten(_build(preset, []))
    # A value that means the same as the preset's keeps the preset's spelling, because "auto" and "quantile" give
    # different digests of the config.
    if "policy.norm" in said.values and equal("policy.norm", base["policy.norm"], values["policy.norm"]):
        config = replace(config, policy=replace(config.policy, norm=base["policy.norm"]))
    lines = tuple(_lines(base, values, said, equal))
    return Configured(config, lines, frozenset(stated), {k: v for k, v in own.items() if k not in stated})


def _refuse_contradictions(said: Said, values: Mapping[str, Any], assumed: Collection[str], equal: _Equal) -> None:
    problems = []
    for key, value in said.values.items():
        if key in (*EXECUTED, *said.doubtful) or equal(key, values[key], value):
            continue
        fact = next((name for name, known_fact in FACTS.items() if known_fact.key == key), key)
        who = f"--assume {fact}" if key in assumed else f"--overrides {key}"
        cause = f"{who} says {spell(values[key])}, but {said.places[key]} says {spell(value)}"
        problems.append(Problem("override-contradicts", cause, "leave it out, or correct the file if it is wrong"))
    if problems:
        raise InvalidJob(problems)


def _build(preset: str | Mapping[str, Any], overrides: Sequence[str]) -> JobConfig:
    if isinstance(preset, str):
        return load_config(preset, overrides)
    return build_config(preset, "the bundle's config.json", overrides)


def _spelled(values: Mapping[str, Any]) -> list[str]:
    """The values as overrides. Texts are quoted, because they may contain commas."""
    return [f"{key}={spell(value, quoted=True)}" for key, value in values.items()]


def means_the_same(key: str, one: Any, other: Any, *, pi05: bool) -> bool:
    """Whether two values of a key mean the same. ``auto`` stands for the default normalisation of the model."""
    if key == "policy.norm" and "auto" in (one, other):
        from rlinf_isaac.data.norm_stats.normaliser import norm_mode  # imports pyarrow, which is slow

        return norm_mode(str(one), pi05) == norm_mode(str(other), pi05)
    return bool(one == other)


def _lines(base: Mapping[str, Any], values: Mapping[str, Any], said: Said, equal: _Equal) -> Iterator[str]:
    """One line per setting in the checkpoint's files, with the preset's or the person's value if that differs."""
    keys = {fact.key for fact in FACTS.values()}
    for key, value in said.values.items():
        if not equal(key, values[key], value):
            yield f"{key} {spell(values[key])} (yours); {said.places[key]} says {spell(value)}"
        elif not equal(key, base[key], value):
            yield f"{key} {spell(value)} ({said.places[key]}); the preset has {spell(base[key])}"
        elif key in keys:
            yield f"{key} {spell(value)} ({said.places[key]})"


def _is_paligemma(config: JobConfig) -> bool:
    """Whether the job's tokenizer is PaliGemma's, judged by its kind and its number of tokens."""
    if config.policy.tokenizer == "byte":
        return False
    try:
        return bool(load_tokenizer(config.policy, config.model).vocab_size == PALIGEMMA_TOKENS)
    except TokenizerError:  # the file is needed only where the policy runs
        return False
