"""What fine-tuning makes of its base and of the norm stats ``base``: both are found, checked and hashed."""

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
        origin: for people.
        path: the file they are in, or were made of.
        record: where they come from, if that is the base; JSON-ready.
    """

    data: bytes
    origin: str
    path: Path
    record: Mapping[str, Any] | None = None


def find(findings: Findings, text: str, locate: Callable[[str], Named]) -> FoundBase | None:
    """The base that an option names and `locate` finds; None for ``none``, and where `findings` now says why there is
    none."""
    if text == options.NONE:
        return None
    from rlinf_isaac.checkpoint.foreign.base import find_base

    with findings.collect():
        return find_base(locate(text))
    return None


def config_of(base: FoundBase | None, preset: str, overrides: Sequence[str]) -> JobConfig:
    """The job: of the preset; with ``auto`` of the base, and without one `DEFAULT_PRESET`.

    Raises:
        InvalidJob: the preset, the base or an override does not give a job.
    """
    if preset != options.AUTO:
        return load_config(preset, overrides)
    if base is None:
        return load_config(DEFAULT_PRESET, overrides)
    from rlinf_isaac.checkpoint.foreign.base_config import config_from_base

    return config_from_base(base, overrides)


def check(findings: Findings, base: FoundBase, config: JobConfig) -> None:
    """Whether the base fills the model of the job, and what it says that the job does otherwise."""
    from rlinf_isaac.checkpoint.foreign.base import plan_base
    from rlinf_isaac.checkpoint.foreign.base_config import check_differences

    with findings.collect():
        plan_base(base.located, config.model, config.sft.fresh, verify=False)
    findings.add(check_differences(base, config))


def choose_norm_stats(text: str, base: FoundBase | None) -> ForeignNormStats | Path | None:
    """What ``--norm-stats`` means: None to compute them, a file, or those of the base.

    Raises:
        NormStatsError: the base has none of this name.
        InvalidJob: there is no base.
    """
    if text == options.AUTO:
        return None
    word, _, asset_id = text.partition(":")
    if word != OF_BASE or Path(text).exists():
        return Path(text)
    if base is None:
        cause = f"--norm-stats {text}: there is no base whose norm stats these could be"
        raise InvalidJob.of("no-base", cause, "pass --base, or leave --norm-stats at auto")
    from rlinf_isaac.checkpoint.foreign.base import norm_stats_of, norm_stats_record

    stats = norm_stats_of(base, asset_id or None)
    origin = f"of the base, {stats.path}"
    return ForeignNormStats(stats.read(), origin, stats.path, norm_stats_record(base, stats))


def check_norm_stats(findings: Findings, stats: ForeignNormStats, config: JobConfig) -> None:
    """Whether norm stats of a base suit the policy; that the dataset gives other ones is what they are chosen for."""
    from rlinf_isaac.preflight import check_norm_stats

    findings.add(check_norm_stats(stats.data, stats.path, config))


def seal(base: FoundBase, config: JobConfig, stats: ForeignNormStats | None, say: Say) -> Base:
    """Hash the base, and say what it is, what its files state, and which parameters come from it."""
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
