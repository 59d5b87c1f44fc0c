"""The facts about a training that must be known before its policy is run, and where each value comes from.

A bundle's ``config.json`` records what its weights were trained with. For a checkpoint trained by this project all
facts are recorded. For a foreign checkpoint only those in its own files are; the other facts are listed:

    "not_known": ["prompt", "control_hz"]        no value is known; the value in the job is a placeholder
    "assumed": {"state": ["eef_x", ...]}         a person gave the value (``--assume``), or the dataset names no dims

Empty keys are left out. An assumed value is compared with a job like a recorded one: a difference is a mismatch. Runs,
lineage and promotion keep saying that it is an assumption. This module does not need torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlinf_isaac.checkpoint.verify import MAX_BYTES
from rlinf_isaac.config import build_config, split_overrides
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.envs.stack_cube.contract import STATE_LAYOUTS
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.ground.reading import read_json
from rlinf_isaac.pi0.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle

NOT_KNOWN = "not_known"
ASSUMED = "assumed"
ALL = "all"
"""``--assume all``: every fact that is not known is assumed to have the job's value."""


@dataclass(frozen=True)
class Fact:
    """One property of the training that cannot be read off the weights.

    Attributes:
        name: its name in ``--assume NAME=VALUE`` and in ``not_known``.
        meaning: what it is, for people.
        key: the key of the job config that has its value (``model.action_horizon``), or None.
    """

    name: str
    meaning: str
    key: str | None = None


FACTS: dict[str, Fact] = {
    fact.name: fact
    for fact in (
        Fact("prompt", "the instruction"),
        Fact("control_hz", "the control rate in Hz"),
        Fact("state", "what each dim of the state is, in order"),
        Fact("actions", "what each dim of an action is, in order"),
        Fact("tokenizer", "the prompt tokenizer", "policy.tokenizer"),
        Fact("action_chunk", "how many actions of a chunk are executed", "policy.action_chunk"),
        Fact("action_horizon", "how many actions a chunk has", "model.action_horizon"),
        Fact("max_token_len", "the longest prompt in tokens", "model.max_token_len"),
        Fact("discrete_state_input", "whether pi0.5 reads the state in its prompt", "model.discrete_state_input"),
        Fact("norm", "zscore or quantile", "policy.norm"),
        Fact("delta_actions", "which actions are relative to the state", "policy.delta_actions"),
    )
}
ENVIRONMENT = "environment"
"""Entry of `unsaid` if it is not known in which simulator the data was recorded. It is shown, but a job does not
require it: this project has no names for real robots and other simulators."""


def not_known(bundle: Bundle) -> tuple[str, ...]:
    """Names of the facts of which no value is known for `bundle`.

    Earlier releases had no ``not_known``. A bundle that they made from a foreign checkpoint without its dataset has the
    values of a preset in ``config.json``, so none of its facts is known except assumed ones.
    """
    config = bundle.config
    if NOT_KNOWN in config:
        listed = config[NOT_KNOWN]
        names = [name for name in FACTS if isinstance(listed, list) and name in listed]
    elif config.get("source") and bundle.lineage.get("dataset") is None:
        names = [name for name in FACTS if name not in assumed(bundle)]
    else:
        names = []
    if names and not _is_pi05(config):
        names = [name for name in names if name != "discrete_state_input"]
    return tuple(names)


def assumed(bundle: Bundle) -> Mapping[str, Any]:
    """Fact -> the value that a person gave, or that replaces the names of dims which a dataset does not have."""
    values = bundle.config.get(ASSUMED)
    return values if isinstance(values, dict) else {}


def assumed_since(bundle: Bundle) -> Mapping[str, Any]:
    """The assumptions that `assume` added to `bundle` and that its ``config.json`` on disk does not have."""
    written = read_json(bundle.path / "config.json", MAX_BYTES).get(ASSUMED) or {}
    return {fact: value for fact, value in assumed(bundle).items() if fact not in written}


def recorded(bundle: Bundle, fact: str, record: str) -> Any:
    """The value of a fact: the entry `record` of ``config.json``, or the assumed value; None if it is not known."""
    if fact in not_known(bundle):
        return None
    value = bundle.config.get(record)
    return assumed(bundle).get(fact) if value is None else value


def unsaid(bundle: Bundle) -> tuple[str, ...]:
    """The facts that are not known of `bundle`, and `ENVIRONMENT` if the training data's environment is not."""
    return (*not_known(bundle), *(() if bundle.config.get("env") else (ENVIRONMENT,)))


def remarks(bundle: Bundle) -> tuple[str, ...]:
    """What is assumed and what is not known of a bundle, one line each, for people. Empty if all is recorded."""
    lines = [f"assumed: {name}={spell(value)}" for name, value in assumed(bundle).items()]
    if missing := unsaid(bundle):
        lines.append(f"not known: {', '.join(missing)}")
    return tuple(lines)


def parse_assumptions(text: str) -> dict[str, Any]:
    """Parses ``--assume``: ``"prompt='Stack.',control_hz=20"`` -> ``{"prompt": "Stack.", "control_hz": 20}``.

    ``none`` gives an empty dict; the word ``all`` becomes the entry ``{"all": True}``.

    Raises:
        InvalidJob: with one problem for each item that is not KEY=VALUE, names no fact, or has a value of a wrong type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    assumptions: dict[str, Any] = {}
    problems = []
    for item in split_overrides(text):
        name, separator, _ = item.partition("=")
        if item == ALL:
            assumptions[ALL] = True
            continue
        if not separator or name not in FACTS:
            cause = f"--assume: {item!r} is none of {', '.join(f'{name}=...' for name in FACTS)}"
            problems.append(Problem("bad-assumption", cause, f"write e.g. control_hz=20, or the word {ALL}"))
            continue
        try:
            values = OmegaConf.to_container(OmegaConf.from_dotlist([item]))
        except (ValueError, YAMLError, OmegaConfBaseException) as error:
            cause = f"--assume: {item!r} cannot be read: {' '.join(str(error).split())[:300]}"
            problems.append(Problem("bad-assumption", cause, "put quotes round a text"))
            continue
        assert isinstance(values, dict)
        value = values[name]
        if wanted := _wrong_type(name, value):
            problems.append(Problem("bad-assumption", f"--assume: {name} is {value!r}", f"make it {wanted}"))
        assumptions[name] = value
    if problems:
        raise InvalidJob(problems)
    return assumptions


def assume(bundle: Bundle, given: Mapping[str, Any], overrides: Sequence[str] = ()) -> Bundle:
    """A copy of `bundle` whose ``config`` has a person's assumptions. The files are not changed.

    Args:
        bundle: a checkpoint.
        given: the assumptions, from `parse_assumptions`.
        overrides: the overrides of the job that is to run it. ``all`` assumes the values of the job with them.

    Raises:
        InvalidJob: an assumed fact is recorded in the checkpoint, or the job has an error.
    """
    if not given:
        return bundle
    unknown = not_known(bundle)
    said = [name for name in given if name != ALL and name not in unknown]
    if said:
        cause = f"{bundle.path} records its {' and '.join(said)} itself: {_own_values(bundle, said)}"
        raise InvalidJob.of("needless-assumption", cause, f"leave {' and '.join(said)} out of --assume")
    config = build_config(bundle.job, f"{bundle.path}/config.json", overrides)
    values = as_in_job(unknown, config) if ALL in given else {}
    values |= {name: value for name, value in given.items() if name != ALL}
    return replace(bundle, config=with_assumed(bundle.config, unknown, values, config)) if values else bundle


def assume_again(bundle: Bundle, said: Mapping[str, Any]) -> Bundle:
    """A copy of `bundle` with earlier assumptions, except those on facts that its files record by now."""
    unknown = not_known(bundle)
    return assume(bundle, {fact: value for fact, value in said.items() if fact in unknown})


def with_assumed(
    description: Mapping[str, Any], unknown: Iterable[str], values: Mapping[str, Any], config: JobConfig
) -> dict[str, Any]:
    """The content of a ``config.json`` with assumptions added.

    Args:
        description: the content without them.
        unknown: the facts that are not known. Those in `values` are removed from the list ``not_known``.
        values: fact -> value. ``state`` may be the name of a layout.
        config: the job, whose task decides the names of a layout's dims.
    """
    changed = {**description, "job": _copy(description["job"])}
    values = {name: _as_recorded(name, value, config) for name, value in values.items()}
    for name, value in values.items():
        key = FACTS[name].key
        if key is not None:
            section, _, field = key.partition(".")
            changed["job"].setdefault(section, {})[field] = value
        if name == "prompt":
            changed["prompts"] = {"0": value}
        elif name == "control_hz":
            changed["control_hz"] = value
        elif name == "tokenizer":
            policy = replace(config.policy, tokenizer=str(value))
            changed["tokenizer"] = load_tokenizer(policy, config.model).fingerprint
    changed[ASSUMED] = {**(description.get(ASSUMED) or {}), **values}
    changed[NOT_KNOWN] = [name for name in unknown if name not in values]
    return changed


def as_in_job(names: Iterable[str], config: JobConfig) -> dict[str, Any]:
    """Fact -> its value in a job."""
    task = task_of(config)
    own = {
        "prompt": task.prompt(0),
        "control_hz": task.control_hz,
        "state": list(task.state.labels) if config.task else config.policy.state_layout,
        "actions": list(task.action.labels),
    }
    return {name: own[name] if name in own else _of_key(config, str(FACTS[name].key)) for name in names}


def spell(value: Any, *, quoted: bool = False) -> str:
    """A value as it can be typed in ``--assume``. With `quoted`, a text is put in single quotes."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and quoted:
        doubled = value.replace("'", "''")
        return f"'{doubled}'"
    return str(value)


def _as_recorded(name: str, value: Any, config: JobConfig) -> Any:
    if name == "state" and isinstance(value, str):
        return list(task_of(replace(config, policy=replace(config.policy, state_layout=value))).state.labels)
    return list(value) if isinstance(value, tuple) else value


def _wrong_type(name: str, value: Any) -> str | None:
    """What the value of a fact has to be, for a message; None if it is right."""
    if name == "state":
        layouts = " or ".join(STATE_LAYOUTS)
        return None if _is_names(value) or value in STATE_LAYOUTS else f"{layouts}, or a list of names in brackets"
    if name == "actions":
        return None if _is_names(value) else "a list of names in brackets"
    if name == "discrete_state_input":
        return None if isinstance(value, bool) else "true or false"
    if name in ("action_chunk", "action_horizon", "max_token_len"):
        return None if type(value) is int and value > 0 else "a whole number above 0"
    if name == "control_hz":
        return None if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else "a rate in Hz"
    return None if isinstance(value, str) and value.strip() else "a text"


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _own_values(bundle: Bundle, names: Sequence[str]) -> str:
    places = {"prompt": "prompts", "state": "state_names", "actions": "action_names"}
    own = {
        name: bundle.config.get(places.get(name, name), (bundle.config.get(ASSUMED) or {}).get(name)) for name in names
    }
    job = bundle.config.get("job") or {}
    for name in names:
        if key := FACTS[name].key:
            section, _, field = key.partition(".")
            own[name] = (job.get(section) or {}).get(field)
    return ", ".join(f"{name} {value}" for name, value in own.items())


def _of_key(config: JobConfig, key: str) -> Any:
    section, _, field = key.partition(".")
    return getattr(getattr(config, section), field)


def _copy(job: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, dict) else value for name, value in job.items()}


def _is_pi05(config: Mapping[str, Any]) -> bool:
    return bool(((config.get("job") or {}).get("model") or {}).get("pi05"))
