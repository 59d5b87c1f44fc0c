"""The config of a fine-tuning from its base: settings that nobody chose are taken from the base's files.

Differences between the base and the job are reported. This module does not need torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.description import for_one_process
from rlinf_isaac.checkpoint.facts import FACTS, spell
from rlinf_isaac.checkpoint.foreign.base import BUNDLE, FoundBase
from rlinf_isaac.checkpoint.foreign.configured import means_the_same
from rlinf_isaac.checkpoint.foreign.make_plan import fitting_architecture
from rlinf_isaac.config import build_config, flatten, load_config, preset_names
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.ground.errors import InvalidJob, Problem

RECIPE = "_base"
"""Suffix of presets that are recipes for fine-tuning. Among presets with the same architecture they are preferred."""
MEANING = {
    "model.discrete_state_input": "the state is in the prompt of one of them only",
    "policy.norm": "the same number means another value",
    "policy.delta_actions": "an action means another movement",
    "policy.state_layout": "the dims of the state mean something else",
    "policy.env_action_dim": "the dims of an action mean something else",
}
"""Keys that decide what numbers mean to the model -> the effect of a difference between base and job."""
OF_THE_TASK = {"policy.delta_actions", "policy.state_layout", "policy.env_action_dim"}
"""Keys that the description of a task decides, whatever its base was trained with."""
ADJUSTABLE = ("model.action_horizon", "model.max_token_len", "policy.action_chunk", "policy.denoise_steps")
"""Keys that a fine-tuning may change without changing what numbers mean to the model."""


def config_from_base(found: FoundBase, overrides: Sequence[str]) -> JobConfig:
    """The config for a base if no preset is named: the preset of its architecture, overridden by what the base records.

    For a bundle it is the job that trained the bundle.

    Raises:
        InvalidJob: no preset has this architecture (``unknown-architecture``), or an override is wrong.
    """
    if found.located.kind == BUNDLE:
        bundle = read_bundle(found.located.path, verify=False)
        return build_config(for_one_process(bundle.job), f"{bundle.path}/config.json", overrides)
    preset = _preset_of(found)
    relevant = {key for fact in FACTS.values() if (key := fact.key) is not None} | set(ADJUSTABLE) | set(MEANING)
    if load_config(preset, overrides).task:
        relevant -= OF_THE_TASK
    said = {key: value for key, value in found.says.items() if key in relevant}
    plain = flatten(load_config(preset))
    # A value that means the same as the preset's keeps the preset's spelling.
    pi05 = bool(plain["model.pi05"])
    from_base = [
        f"{key}={spell(value, quoted=True)}"
        for key, value in said.items()
        if not means_the_same(key, plain[key], value, pi05=pi05)
    ]
    return load_config(preset, [*from_base, *overrides])


def _preset_of(found: FoundBase) -> str:
    fitting = fitting_architecture(found.located, [load_config(name).model for name in preset_names()])
    names = [name for name, fits in zip(preset_names(), fitting, strict=True) if fits]
    recipes = [name for name in names if name.endswith(RECIPE)]
    if names:
        return (recipes or names)[0]
    cause = f"none of the presets ({', '.join(preset_names())}) has the shapes in {found.located.path}"
    cure = "name the nearest with --preset, to see which tensors differ; then use --overrides model...."
    raise InvalidJob.of("unknown-architecture", cause, cure)


def differences(found: FoundBase, config: JobConfig) -> Iterator[tuple[str, Any, Any]]:
    """(key, value of the base, value of the job) for each key that differs, keys of `MEANING` first."""
    values = flatten(config)
    for key in (*MEANING, *ADJUSTABLE):
        said = found.says.get(key)
        if said is not None and not means_the_same(key, values[key], said, pi05=config.model.pi05):
            yield key, said, values[key]


def check_differences(found: FoundBase, config: JobConfig) -> list[Problem]:
    """A warning for each difference that changes what numbers mean to the model."""
    different = [entry for entry in differences(found, config) if entry[0] in MEANING]
    problems = [
        Problem(
            "base-differs",
            f"{key} is {spell(own)} in this job, {spell(said)} in the base ({found.located.said.places[key]}): "
            f"{MEANING[key]}, which the fine-tuning has to teach",
            f"nothing to do if that is meant; otherwise pass --overrides {key}={spell(said)}",
            level="warning",
        )
        for key, said, own in different
    ]
    if not any(key == "policy.state_layout" for key, _, _ in different):
        problems += _other_dims(found, config)
    return problems


def _other_dims(found: FoundBase, config: JobConfig) -> list[Problem]:
    """A warning if the dims of the state differ from the base's under the same layout, as they do for another task."""
    if found.located.kind != BUNDLE:
        return []
    before = read_bundle(found.located.path, verify=False).config.get("state_names")
    now = list(task_of(config).state.labels)
    if not before or list(before) == now:
        return []
    pairs = enumerate(zip_longest(before, now, fillvalue="nothing"))
    place, (old, new) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
    cause = (
        f"the state has {len(now)} dims in this job, {len(before)} in the base (config.json: state_names); the first "
        f"that differs is dim {place}, {new} in this job, {old} in the base: {MEANING['policy.state_layout']}, which "
        "the fine-tuning has to teach"
    )
    cure = "nothing to do if that is meant"
    if not config.model.discrete_state_input:
        cure += "; --overrides 'sft.fresh=[state_proj.*]' starts with a new projection of the state"
    return [Problem("base-differs", cause, cure, level="warning")]


def says_lines(found: FoundBase, config: JobConfig) -> Iterator[str]:
    """One line per setting that the base records, with the job's value if that differs, for people."""
    different = {key: own for key, _, own in differences(found, config)}
    for key in (*MEANING, *ADJUSTABLE):
        if key in found.says:
            own = f"; this job has {spell(different[key])}" if key in different else ""
            yield f"{key} {spell(found.says[key])} ({found.located.said.places[key]}){own}"
