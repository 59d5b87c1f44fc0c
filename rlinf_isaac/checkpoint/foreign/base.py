"""The base, the checkpoint from which a fine-tuning starts: where it is, what it records, which parameters it fills.

A base can be any checkpoint that `bundle make` reads, with or without norm stats. OpenPI and RLinf load a base with
``strict=False`` and do not report missing parameters. Here every parameter comes from the base except those that
nothing reads (`layout.UNREAD`) and those that a person excludes by name; both are counted and named. This module does
not need torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.convert.select import matching
from rlinf_isaac.checkpoint.facts import FACTS
from rlinf_isaac.checkpoint.find_weights import name_within, root_of
from rlinf_isaac.checkpoint.foreign.find_norm_stats import NormStatsSource, all_norm_stats
from rlinf_isaac.checkpoint.foreign.make_plan import Conversion, plan_conversion
from rlinf_isaac.checkpoint.foreign.sources import Located, find_located
from rlinf_isaac.config.schema import JobConfig, ModelConfig
from rlinf_isaac.ground.digest import file_digest, json_digest
from rlinf_isaac.ground.errors import InvalidJob, NormStatsError, Problem, WeightsError
from rlinf_isaac.pi0.layout import TIED, state_dict_shapes

BUNDLE = "bundle"


@dataclass(frozen=True)
class Named:
    """The path and the name of a base.

    Attributes:
        path: its directory or file on this machine.
        name: its name for people and in the lineage; if possible the same on every machine (``lerobot/pi0_base``).
        revision: its commit if it comes from a hub, otherwise None.
    """

    path: Path
    name: str
    revision: str | None = None


@dataclass(frozen=True)
class Coverage:
    """Which parameters of a model a base fills.

    Attributes:
        total: number of names in the model's state dict.
        chosen: names that a person excluded (`SftConfig.fresh`); they start with random values.
        unread: names that the base does not store and that nothing reads; they start with zeros.
    """

    total: int
    chosen: tuple[str, ...]
    unread: tuple[str, ...]

    @property
    def summary(self) -> str:
        """``812 of 813 parameters from the base, 1 new: <names>``."""
        new = [*self.chosen, *self.unread]
        names = f": {', '.join(new)}" if new else ""
        return f"{self.total - len(new)} of {self.total} parameters from the base, {len(new)} new{names}"


@dataclass(frozen=True)
class FoundBase:
    """A base of which only metadata has been read: of its weights, only names and shapes.

    Attributes:
        named: its path and name.
        located: its layout, its weights and what its files record.
        norm_stats: all norm stats in it.
    """

    named: Named
    located: Located
    norm_stats: tuple[NormStatsSource, ...]

    @property
    def says(self) -> Mapping[str, Any]:
        """Key of the job config -> the value with which the base was trained, for all keys that its files record."""
        return self.located.said.values

    @cached_property
    def not_known(self) -> tuple[str, ...]:
        """The facts with a key of the job config (`facts.FACTS`) that the base does not record."""
        pi05 = self.says.get("model.pi05")
        asked = {name: fact.key for name, fact in FACTS.items() if fact.key is not None}
        if self.located.said.tokenizer or self.located.kind == BUNDLE:
            asked.pop("tokenizer")
        if pi05 is False:
            asked.pop("discrete_state_input")
        return tuple(name for name, key in asked.items() if key not in self.says)


@dataclass(frozen=True)
class Base:
    """The base of a job, with the digests of its files.

    Attributes:
        named: its path and name.
        kind: its layout (`Located.kind`).
        files: relative name of each file of weights -> sha256. Empty for a bundle, whose digest covers its files.
        digest: digest of the bundle, or of `files`.
        coverage: which parameters it fills.
        not_known: facts of its own training that it does not record.
        norm_stats: JSON-ready record of where the job's norm stats come from; None if they are not the base's.
    """

    named: Named
    kind: str
    files: Mapping[str, str]
    digest: str
    coverage: Coverage
    not_known: tuple[str, ...] = ()
    norm_stats: Mapping[str, Any] | None = None

    @property
    def link(self) -> str:
        """Its link in the lineage: ``parent`` for a bundle, as in `rl`, and ``base`` for any other checkpoint."""
        return "parent" if self.kind == BUNDLE else "base"

    @property
    def record(self) -> dict[str, Any]:
        """JSON-ready record for ``config.json`` of the checkpoints, without paths: equal bases give equal bytes."""
        return {
            "name": self.named.name,
            "revision": self.named.revision,
            "kind": self.kind,
            "digest": self.digest,
            "files": dict(self.files),
            "parameters": self.coverage.summary,
            "not_known": list(self.not_known),
        }


def find_base(named: Named) -> FoundBase:
    """Find the weights, norm stats and recorded settings of the base at ``named.path``.

    Raises:
        BundleError: there are no weights, several that may differ, or they have a format that is not read here; or the
            files that describe the base are damaged, or describe a policy that this project does not have.
        NormStatsError: norm stats in it cannot be read.
    """
    stats: list[NormStatsSource] = []

    def look(root: Path) -> list[NormStatsSource]:
        stats.extend(all_norm_stats(root))
        return stats

    with _cures_for_a_base():
        located = find_located(named.path, look)
        if located.kind == BUNDLE:
            read_bundle(located.path, verify=False)
    return FoundBase(named, located, tuple(stats))


@contextmanager
def _cures_for_a_base() -> Iterator[None]:
    """Replaces ``--weights`` by ``--base`` in the cures of errors: a base has no separate option for its weights."""
    try:
        yield
    except InvalidJob as error:
        cures = [problem.cure.replace("--weights ", "--base ") for problem in error.problems]
        raise type(error)(
            [replace(problem, cure=cure) for problem, cure in zip(error.problems, cures, strict=True)]
        ) from error


def norm_stats_of(found: FoundBase, asset_id: str | None) -> NormStatsSource:
    """The norm stats of a base with the given asset id; without an asset id, the base must have only one.

    Raises:
        NormStatsError: the base has no norm stats, none with this asset id, or several and no asset id was given.
    """
    names = sorted({stats.asset_id for stats in found.norm_stats if stats.asset_id is not None})
    others = "compute those of the data: --norm-stats auto"
    candidates = [stats for stats in found.norm_stats if asset_id in (None, stats.asset_id)]
    if len({stats.sha256 for stats in candidates}) == 1:
        return candidates[0]
    where = found.located.path
    listed = ", ".join(f"base:{name}" for name in names)
    if not found.norm_stats:
        raise NormStatsError.of("no-norm-stats", f"the base {where} has no norm stats", others)
    if not candidates:
        cause = f"the base {where} has no norm stats of {asset_id}; it has {listed or 'some without a name'}"
        raise NormStatsError.of("no-norm-stats", cause, f"name one of them, or {others}")
    cause = f"the base {where} has several norm stats: {listed}"
    cure = f"say of which robot: --norm-stats {listed.partition(',')[0]}; or {others}"
    raise NormStatsError.of("ambiguous-norm-stats", cause, cure)


def norm_stats_record(found: FoundBase, stats: NormStatsSource) -> dict[str, Any]:
    """The entry ``norm_stats`` of ``config.json``, for norm stats that come from a base."""
    place = {"source": name_within(found.located.path, stats.path), "source_sha256": stats.sha256}
    return {"of": "base", "asset_id": stats.asset_id, **place, **stats.record}


def fresh_names(patterns: Sequence[str], model: ModelConfig) -> tuple[str, ...]:
    """The parameters that match the patterns of ``sft.fresh``. A tied parameter brings the one that it is tied to.

    Raises:
        WeightsError: a pattern matches no parameter.
    """
    names = list(state_dict_shapes(model))
    matched, unmatched = matching({name: name for name in names}, patterns)
    if unmatched:
        cure = "name some of them, such as sft.fresh=[state_proj.*]"
        causes = [f"sft.fresh: the model has no parameter {pattern}" for pattern in unmatched]
        raise WeightsError([Problem("unknown-parameter", cause, cure) for cause in causes])
    for pair in TIED:
        matched |= set(pair) if matched & set(pair) else set()
    return tuple(name for name in names if name in matched)


def plan_base(located: Located, model: ModelConfig, fresh: Sequence[str], *, verify: bool = True) -> Conversion:
    """How the weights of a base fill the parameters of ``Pi0(model)`` that match none of the patterns in `fresh`.

    Without `verify` the weights of a bundle are not hashed.

    Raises:
        BundleError: the weights are damaged, or a bundle was changed after it was sealed.
        WeightsError: they do not fit the model, are unsafe to read, or a pattern matches no parameter.
    """
    with _cures_for_a_base():
        return plan_conversion(located, model, left_out=fresh_names(fresh, model), verify=verify)


def coverage_of(conversion: Conversion, config: JobConfig) -> Coverage:
    """Which parameters of a job's model `conversion` fills."""
    chosen = fresh_names(config.sft.fresh, config.model)
    return Coverage(len(state_dict_shapes(config.model)), chosen, conversion.plan.unread)


def seal_base(found: FoundBase, config: JobConfig, norm_stats: Mapping[str, Any] | None = None) -> Base:
    """Hash the weights of a base (about 1.5 GB/s), for the lineage of the checkpoints that are trained from it.

    Args:
        found: the base.
        config: the config of the job.
        norm_stats: `norm_stats_record`, if the job's norm stats come from the base.

    Raises:
        BundleError, WeightsError: as `plan_base`.
    """
    located = found.located
    conversion = plan_base(located, config.model, config.sft.fresh)
    files: dict[str, str] = {}
    if located.kind != BUNDLE:
        files = {name_within(located.path, file): file_digest(file) for file in located.weights.files}
    return Base(
        named=found.named,
        kind=located.kind,
        files=files,
        digest=located.parent or json_digest(files),
        coverage=coverage_of(conversion, config),
        not_known=found.not_known,
        norm_stats=norm_stats,
    )


def changed_files(files: Mapping[str, str], path: Path) -> Iterator[str]:
    """One sentence for each file of a base (`Base.files`) that is missing at `path` or has another digest."""
    root = root_of(path)
    for name, recorded in files.items():
        file = root / name
        try:
            now = file_digest(file)
        except OSError as error:
            yield f"{file} cannot be read: {error.strerror}"
            continue
        if now != recorded:
            yield f"{file} has the sha256 {now} now, but {recorded} was recorded"
