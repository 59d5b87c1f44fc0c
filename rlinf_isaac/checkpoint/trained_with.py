"""Compares a bundle's record of its training with the job that is to run its policy.

Each difference lowers the success rate without any error: the policy still moves, only worse. A fact that the record
does not have is no match either; one problem asks for all such facts at once (`facts`). This module needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.facts import FACTS, as_in_job, assumed, not_known, recorded, spell
from rlinf_isaac.checkpoint.trained_in import ALLOW, environment_mismatches
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import STACK_CUBES, stack_cube, task_of
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.pi0.tokenizer import load_tokenizer
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.task import Task, differences


@dataclass(frozen=True)
class NormStatsFile:
    """A ``norm_stats.json`` that a job uses instead of the one in the bundle."""

    path: Path
    data: bytes

    @classmethod
    def read(cls, path: Path) -> NormStatsFile:
        """Raises NormStatsError if there is no such file."""
        # Imported here because the module imports pyarrow, which is slow, and --help should not wait for it.
        from rlinf_isaac.data.norm_stats.parse import read_bytes

        return cls(path, read_bytes(path))

    @property
    def digest(self) -> str:
        return bytes_digest(self.data)


def mismatches(
    bundle: Bundle,
    config: JobConfig,
    *,
    norm_stats: NormStatsFile | None = None,
    environment: Mapping[str, Any] | None = None,
) -> list[Problem]:
    """Every difference between a job and the training of the weights of `bundle`.

    Args:
        bundle: its ``config.json`` records its training. The facts that it does not record are one problem,
            ``not-known``; assumptions (`facts.assume`) are compared like records.
        config: the config of the job.
        norm_stats: the norm stats of the job, if they are not the bundle's own.
        environment: identity of the environment, if it is built already. Otherwise only the properties that `config`
            decides are compared.

    Raises:
        TokenizerError: the job's tokenizer cannot be read.
    """
    unknown = unknown_problem(bundle, config)
    known, task = _Known(bundle), task_of(config)
    problems = [
        *([unknown] if unknown else []),
        *_norm_stats(bundle, norm_stats),
        *_tokenizer(known, config),
        *_action_chunk(known, config),
    ]
    if of_task := list(_task(bundle, config)):
        return problems + of_task  # they name prompt, rate, state, actions and environment as far as these differ
    return [
        *problems,
        *_prompt(known, task),
        *_control_rate(known, task),
        *_state_layout(known, config, task),
        *_action_names(known, task),
        *environment_mismatches(bundle, known.get("images", "images") or {}, config, environment),
    ]


def trained_task(bundle: Bundle) -> Task | None:
    """The task that a bundle describes; None of stack-cube, of which the facts are recorded one by one, and where it is
    not known."""
    described = bundle.job.get("task")
    return from_dict(described, f"{bundle.path}/config.json") if described else None


def _task(bundle: Bundle, config: JobConfig) -> Iterator[Problem]:
    """The fields in which the task of the training and that of the job differ, unless both are stack-cube."""
    trained, now = trained_task(bundle), task_of(config)
    if trained is None and (not config.task or not_known(bundle)):
        return
    if trained is None:
        recorded = bundle.job["env"]["task"], bundle.job["policy"]["state_layout"]
        trained = stack_cube(*recorded)
    if different := differences(trained, now):
        lines = [f"\n  {key}: {_short(old)} there, {_short(new)} here" for key, old, new in different]
        cause = f"{bundle.path} was trained for the task {trained.name}, the job has {now.name}:{''.join(lines)}"
        yield Problem("task-mismatch", cause, f"leave --task out, which takes that of the checkpoint, {ALLOW}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def not_to_be_allowed(problems: Iterable[Problem]) -> list[Problem]:
    """The problems with ``--allow-mismatch`` removed from their cures, for a verb that does not have this option."""
    return [replace(problem, cure=problem.cure.removesuffix(f", {ALLOW}")) for problem in problems]


def serving_mismatches(bundle: Bundle, config: JobConfig) -> list[Problem]:
    """The problems that keep a policy from being served: unknown facts of its training, or another tokenizer.

    The client's robot cannot be compared, because the server does not know it. Instead the server announces what the
    policy was trained with (prompts, rate, names of states and actions) and refuses observations of another form.

    Raises:
        TokenizerError: the job's tokenizer cannot be read.
    """
    unknown = unknown_problem(bundle, config)
    return not_to_be_allowed([*([unknown] if unknown else []), *_tokenizer(_Known(bundle), config)])


def unknown_problem(bundle: Bundle, config: JobConfig) -> Problem | None:
    """One problem for all facts that are not known of `bundle`. Its cure is an option that can be typed as it is."""
    unknown = not_known(bundle)
    if not unknown:
        return None
    listed = "".join(f"\n  {name}: {FACTS[name].meaning}" for name in unknown)
    values = as_in_job(unknown, config)
    words = ",".join(f"{name}={spell(value, quoted=True)}" for name, value in values.items())
    cure = (
        f"if it was trained with what this job has, pass --assume all, which is --assume {_in_double_quotes(words)};"
        f" name what differs with its own value, {ALLOW}"
    )
    return Problem("not-known", f"it is not recorded what {bundle.path} was trained with:{listed}", cure)


class _Known:
    """Access to the facts of a bundle's training: values (None if not known) and where they come from.

    Attributes:
        path: the bundle's directory.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.path, self._bundle = bundle.path, bundle

    def get(self, fact: str, record: str) -> Any:
        """The value of a fact that ``config.json`` records under the key `record`."""
        return recorded(self._bundle, fact, record)

    def job(self, fact: str, section: str, field: str) -> Any:
        """The value of a fact that is a key of the job in ``config.json``."""
        if fact in not_known(self._bundle):
            return None
        return ((self._bundle.config.get("job") or {}).get(section) or {}).get(field)

    def source(self, fact: str) -> str:
        """Where the value of a fact comes from, for messages."""
        return "as is assumed" if fact in assumed(self._bundle) else "its config.json"


def _norm_stats(bundle: Bundle, file: NormStatsFile | None) -> Iterator[Problem]:
    trained = bundle.lineage.get("norm_stats")
    if file is not None and file.digest != trained:
        cause = (
            f"{bundle.path} was trained with norm stats {trained} ({bundle.asset_id}/norm_stats.json in it),"
            f" the job uses {file.digest} ({file.path})"
        )
        yield Problem("norm-stats-mismatch", cause, f"leave --norm-stats at auto, {ALLOW}")


def _tokenizer(known: _Known, config: JobConfig) -> Iterator[Problem]:
    trained = known.get("tokenizer", "tokenizer")
    now = load_tokenizer(config.policy, config.model).fingerprint
    if trained is not None and trained != now:
        cause = (
            f"{known.path} was trained with the tokenizer {_tokenizer_name(trained)} ({known.source('tokenizer')}),"
            f" the job has {_tokenizer_name(now)} (policy.tokenizer={config.policy.tokenizer})"
        )
        yield Problem("tokenizer-mismatch", cause, f"set policy.tokenizer to the checkpoint's, {ALLOW}")


def _prompt(known: _Known, task: Task) -> Iterator[Problem]:
    trained = list((known.get("prompt", "prompts") or {}).values())
    for now in task.prompts or ():
        if trained and now not in trained:
            cause = (
                f"{known.path} was trained with the prompt {' or '.join(map(repr, trained))}"
                f" ({known.source('prompt')}), the task {task.name} gives {now!r}"
            )
            fitting = next((name for name in STACK_CUBES if stack_cube(name).prompt(0) in trained), None)
            cure = f"set env.task={fitting}" if fitting else "write that prompt into the task, if it means the same"
            yield Problem("prompt-mismatch", cause, f"{cure}, {ALLOW}")


def _control_rate(known: _Known, task: Task) -> Iterator[Problem]:
    trained = known.get("control_hz", "control_hz")
    if trained is not None and trained != task.control_hz:
        cause = (
            f"{known.path} was trained at {trained} Hz ({known.source('control_hz')}), the job controls at"
            f" {task.control_hz} Hz: the same actions move the robot at another speed"
        )
        yield Problem("control-rate-mismatch", cause, f"train on data at {task.control_hz} Hz, {ALLOW}")


def _action_chunk(known: _Known, config: JobConfig) -> Iterator[Problem]:
    trained, now = known.job("action_chunk", "policy", "action_chunk"), config.policy.action_chunk
    if trained is not None and trained != now:
        cause = (
            f"{known.path} was trained with policy.action_chunk {trained} ({known.source('action_chunk')}),"
            f" the job has {now}"
        )
        yield Problem("action-chunk-mismatch", cause, f"leave policy.action_chunk out, {ALLOW}")


def _state_layout(known: _Known, config: JobConfig, task: Task) -> Iterator[Problem]:
    trained, now = known.get("state", "state_names"), task.state.names
    if trained and now and tuple(trained) != now:
        layout = "the state" if config.task else config.policy.state_layout
        cause = (
            f"{known.path} was trained with the state {_abridge(trained)} ({known.source('state')}),"
            f" {layout} of {task.name} is {_abridge(now)}{_where(trained, now)}"
        )
        cure = "set env.task and policy.state_layout to the ones it was trained with"
        yield Problem("state-layout-mismatch", cause, f"{cure}, {ALLOW}")


def _action_names(known: _Known, task: Task) -> Iterator[Problem]:
    trained, now = known.get("actions", "action_names"), task.action.names
    if trained and now and tuple(trained) != now:
        cause = (
            f"{known.path} was trained to give the actions {_abridge(trained)} ({known.source('actions')}), the"
            f" environment takes {_abridge(now)}{_where(trained, now)}"
        )
        yield Problem("action-names-mismatch", cause, f"train on data whose actions are those, in that order, {ALLOW}")


def _tokenizer_name(fingerprint: Mapping[str, Any]) -> str:
    return f"{fingerprint.get('kind')} ({fingerprint.get('vocab_size')} tokens, sha256 {fingerprint.get('sha256')})"


def _abridge(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"[{shown}, ... {len(names)} dims]" if len(names) > 3 else f"[{shown}]"


def _where(trained: Sequence[str], now: Sequence[str]) -> str:
    """Describes the first difference between two lists of names of equal length; empty if the lengths differ."""
    if len(trained) != len(now):
        return ""
    if sorted(trained) == sorted(now):
        return f"; the same names in another order: {', '.join(trained)}"
    dim = next(number for number, pair in enumerate(zip(trained, now, strict=True)) if pair[0] != pair[1])
    return f"; dim {dim} is {trained[dim]} there and {now[dim]} here"


def _in_double_quotes(text: str) -> str:
    """Quotes a word for the shell. `shlex.quote` would make the single quotes around a prompt unreadable."""
    escaped = re.sub(r'([\\"$`])', r"\\\1", text)
    return f'"{escaped}"'
