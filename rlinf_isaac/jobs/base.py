"""Finds, checks and hashes the base of a fine-tuning, and the norm stats that ``--norm-stats base`` takes from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.jobs import Say, options

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.foreign.base import Base, FoundBase, Named
    from rlinf_isaac.preflight import Findings

OF_BASE = "base"
DEFAULT_PRESET = "tiny"


@dataclass(frozen=True)
class ForeignNormStats:
    """Norm stats that are not computed from the dataset.

    Attributes:
        data: bytes of the ``norm_stats.json``.
        origin: their origin in words, for the user.
        path: the file that holds them, or from which they were made.
        record: JSON-ready record of their origin if they come from the base.
    """

    data: bytes
    origin: str
    path: Path
    record: Mapping[str, Any] | None = None


def find(findings: Findings, text: str, locate: Callable[[str], Named]) -> FoundBase | None:
    """The base that the option names and `locate` finds.

    Returns:
        The base; None for ``none``, and also if there is an error, which is then in `findings`.
    """
    if text == options.NONE:
        return None
    from rlinf_isaac.checkpoint.foreign.base import find_base

    with findings.collect():
        return find_base(locate(text))
    return None


def config_of(base: FoundBase | None, preset: str, overrides: Sequence[str]) -> JobConfig:
    """The config of the job: that of the preset. ``auto`` means that of the base or, without one, `DEFAULT_PRESET`.

    Raises:
        InvalidJob: the preset, the base or an override is not valid.
    """
    if preset != options.AUTO:
        return load_config(preset, overrides)
    if base is None:
        return load_config(DEFAULT_PRESET, overrides)
    from rlinf_isaac.checkpoint.foreign.base_config import config_from_base

    return config_from_base(base, overrides)


def check(findings: Findings, base: FoundBase, config: JobConfig) -> None:
    """Check that the base fills the model of the job, and report its settings that differ from those of the job."""
    from rlinf_isaac.checkpoint.foreign.base import plan_base
    from rlinf_isaac.checkpoint.foreign.base_config import check_differences

    with findings.collect():
        plan_base(base.located, config.model, config.sft.fresh, verify=False)
    findings.add(check_differences(base, config))


def choose_norm_stats(text: str, base: FoundBase | None) -> ForeignNormStats | Path | None:
    """The norm stats that ``--norm-stats`` means: a file, or those of the base. None means that they are computed.

    Raises:
        NormStatsError: the base has no norm stats with this name.
        InvalidJob: there is no base.
    """
    if text == options.AUTO:
        return None
    word, _, asset_id = text.partition(":")
    if word != OF_BASE or Path(text).exists():
        return Path(text)
    if base is None:
        cause = f"--norm-stats {text} takes norm stats from the base, but there is no --base"
        raise InvalidJob.of("no-base", cause, "pass --base, or leave --norm-stats at auto")
    from rlinf_isaac.checkpoint.foreign.base import norm_stats_of, norm_stats_record

    stats = norm_stats_of(base, asset_id or None)
    origin = f"of the base, {stats.path}"
    return ForeignNormStats(stats.read(), origin, stats.path, norm_stats_record(base, stats))


def check_norm_stats(findings: Findings, stats: ForeignNormStats, config: JobConfig) -> None:
    """Check that norm stats of a base suit the policy. They are not compared with the dataset."""
    from rlinf_isaac.preflight import check_norm_stats

    findings.add(check_norm_stats(stats.data, stats.path, config))


def seal(base: FoundBase, config: JobConfig, stats: ForeignNormStats | None, say: Say) -> Base:
    """Hash the base, and tell the user its identity, the settings in its files, and which parameters come from it."""
    from rlinf_isaac.checkpoint.foreign.base import seal_base
    from rlinf_isaac.checkpoint.foreign.base_config import says_lines

    sealed = seal_base(base, config, None if stats is None else stats.record)
    revision = f" at {sealed.named.revision}" if sealed.named.revision else ""
    say(f"base         {sealed.named.path} ({sealed.kind}{revision}) sha256 {sealed.digest}")
    for line in says_lines(base, config):
        say(f"says         {line}")
    if sealed.not_known:
        say(f"not known    {', '.join(sealed.not_known)}")
    say(f"parameters   {sealed.coverage.summary}")
    return sealed
