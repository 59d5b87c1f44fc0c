"""The episodes of a checkpoint: as rows of the table in its run, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from statistics import fmean
from typing import Any

from rlinf_isaac.ground.events import EpisodeRow
from rlinf_isaac.stats.rates import RateEstimate, macro_average
from rlinf_isaac.tasks.success_rules import RULES

TIMEOUT = "timeout"
OF_STACK_CUBE = ("drop",)
"""The failures of an evaluation whose settings name none."""
_FLAG, _EXTRA = "subtask/", "extra/"
UNKNOWN_NOISE = ("policy_seed", -1)
_UNKNOWN: Mapping[str, Any] = {"length": math.nan, "episode_return": math.nan, "policy_seed": -1}
"""What evaluations of other tools may not say."""
_COLUMNS = {each.name for each in fields(EpisodeRow)} - {"subtasks", "extras"}


def table_row(row: EpisodeRow) -> dict[str, Any]:
    """A row of `EPISODES_FILE`; `episode_row` is its inverse. What is not known (NaN; -1 as
    the policy's seed) is left out."""
    values = {key: value for key, value in row.as_dict().items() if value == value and (key, value) != UNKNOWN_NOISE}
    subtasks, extras = values.pop("subtasks"), values.pop("extras", {})
    flags = {f"{_FLAG}{flag}": reached for flag, reached in sorted(subtasks.items())}
    return values | flags | {f"{_EXTRA}{name}": value for name, value in sorted(extras.items())}


def episode_row(values: Mapping[str, Any]) -> EpisodeRow:
    """Inverse of `table_row`. Columns that are neither a field nor a subtask flag nor an extra are ignored, and so is
    what other rows of the table have and this one lacks (None)."""
    values = {key: value for key, value in values.items() if value is not None}
    flags = {key.removeprefix(_FLAG): bool(value) for key, value in values.items() if key.startswith(_FLAG)}
    extras = {key.removeprefix(_EXTRA): float(value) for key, value in values.items() if key.startswith(_EXTRA)}
    own = {key: value for key, value in values.items() if key in _COLUMNS}
    return EpisodeRow(**{**_UNKNOWN, **own}, subtasks=flags, extras=extras)


def unsolved(settings: Mapping[str, Any], rows: Sequence[EpisodeRow]) -> tuple[str, ...]:
    """The outcomes besides success, time-outs last: those that the task has, and any other that happened. Another tool
    may not tell time-outs apart (``time_outs`` in its settings)."""
    seen = sorted({row.outcome for row in rows} - {"success", TIMEOUT})
    names = dict.fromkeys([*settings.get("failures", OF_STACK_CUBE), *seen])
    return (*names, TIMEOUT) if settings.get("time_outs", True) else (*names,)


def extra_means(rows: Sequence[EpisodeRow]) -> dict[str, float]:
    """Name -> mean over the episodes that have this number; a name that none has is left out, and so are those of the
    second success rule (`success_rules`)."""
    names = sorted({name for row in rows for name in row.extras} - {*RULES})
    values = {
        name: [row.extras[name] for row in rows if math.isfinite(row.extras.get(name, math.nan))] for name in names
    }
    return {name: fmean(each) for name, each in values.items() if each}


def solved(rows: Sequence[EpisodeRow]) -> tuple[int, int]:
    """(successes, episodes), of all tasks together."""
    return sum(row.success for row in rows), len(rows)


def success_of(rows: Sequence[EpisodeRow]) -> RateEstimate:
    """The success rate of episodes, in which each task counts the same."""
    counts: dict[str, list[bool]] = {}
    for row in rows:
        counts.setdefault(row.task, []).append(row.success)
    return macro_average([(sum(each), len(each)) for each in counts.values()])


def success_words(success: RateEstimate) -> str:
    """A success rate with its 95 % interval and the number of episodes, short enough for a tag."""
    rate, low, high = (f"{100 * value:.0f}" for value in (success.rate, success.low, success.high))
    return f"{rate} % ({low} to {high} %) of {success.n}"
