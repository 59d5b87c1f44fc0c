"""The checkpoint that a fine-tuning starts from: what it is, what it says, which parameters it fills. No torch.

Any checkpoint that `bundle make` reads is one, with or without norm stats. OpenPI and RLinf load a base with
``strict=False`` and say nothing of what was missing. Here every parameter comes from the base but those that nothing
reads (`layout.UNREAD`) and those that a person leaves out by name, and both are counted and named.
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
    """Where a base lies and what it is called.

    Attributes:
        path: its directory or file on this machine.
        name: for people and in the lineage; the same on every machine where it can be (``lerobot/pi0_base``).
        revision: the commit of a hub, None elsewhere.
    """

    path: Path
    name: str
    revision: str | None = None


@dataclass(frozen=True)
class Coverage:
    """Which parameters of a model a base fills.

    Attributes:
        total: names of the model's state dict.
        chosen: names that a person left out (`SftConfig.fresh`): they begin with random values.
        unread: names that the base does not store and that nothing reads: they begin with zeros.
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
    """A base that was looked at; nothing of its weights but names and shapes has been read.

    Attributes:
        named: where it lies, and its name.
        located: what it is and says of itself.
        norm_stats: all that lie in it.
    """

    named: Named
    located: Located
    norm_stats: tuple[NormStatsSource, ...]

    @property
    def says(self) -> Mapping[str, Any]:
        """Key of the job config -> the value that the base was trained with, as far as it says so."""
        return self.located.said.values

    @cached_property
    def not_known(self) -> tuple[str, ...]:
        """The facts with a key of the job config (`facts.FACTS`) that the base does not say."""
        pi05 = self.says.get("model.pi05")
        asked = {name: fact.key for name, fact in FACTS.items() if fact.key is not None}
        if self.located.said.tokenizer or self.located.kind == BUNDLE:
            asked.pop("tokenizer")
        if pi05 is False:
            asked.pop("discrete_state_input")
        return tuple(name for name, key in asked.items() if key not in self.says)


@dataclass(frozen=True)
class Base:
    """What a job starts from, sealed: its bytes were hashed.

    Attributes:
        named: where it lies, and its name.
        kind: layout it has (`Located.kind`).
        files: name of each file of weights within it -> sha256; empty for a bundle, whose digest covers them.
        digest: of the bundle, or of `files`.
        coverage: which parameters it fills.
        not_known: facts of its own training that it does not say.
        norm_stats: where the job's norm stats come from, if they are the base's; None if not. JSON-ready.
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
        """Its name in the lineage: bundles are ``parent``, as for `rl`; what others wrote is ``base``."""
        return "parent" if self.kind == BUNDLE else "base"

    @property
    def record(self) -> dict[str, Any]:
        """JSON-ready, for ``config.json`` of the checkpoints: without paths, so that equal bases give equal bytes."""
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
    """Find out what the base at ``named.path`` is.

    Raises:
        BundleError: there are no weights, several that may disagree, they are of a framework we do not read, or what
            the base says of itself is damaged or cannot be done here.
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
    """Elsewhere the weights have an option of their own; a base is named by them as well as by its directory."""
    try:
        yield
    except InvalidJob as error:
        cures = [each.cure.replace("--weights ", "--base ") for each in error.problems]
        raise type(error)(
            [replace(each, cure=cure) for each, cure in zip(error.problems, cures, strict=True)]
        ) from error


def norm_stats_of(found: FoundBase, asset_id: str | None) -> NormStatsSource:
    """The norm stats of a base: those of an asset id, or the only ones.

    Raises:
        NormStatsError: there are none, none of this name, or several and no name.
    """
    names = sorted({stats.asset_id for stats in found.norm_stats if stats.asset_id is not None})
    others = "compute those of the data: --norm-stats auto"
    chosen = [stats for stats in found.norm_stats if asset_id in (None, stats.asset_id)]
    if len({stats.sha256 for stats in chosen}) == 1:
        return chosen[0]
    where = found.located.path
    listed = ", ".join(f"base:{name}" for name in names)
    if not found.norm_stats:
        raise NormStatsError.of("no-norm-stats", f"the base {where} has no norm stats", others)
    if not chosen:
        cause = f"the base {where} has no norm stats of {asset_id}; it has {listed or 'some without a name'}"
        raise NormStatsError.of("no-norm-stats", cause, f"name one of them, or {others}")
    cause = f"the base {where} has several norm stats: {listed}"
    cure = f"say of which robot: --norm-stats {listed.partition(',')[0]}; or {others}"
    raise NormStatsError.of("ambiguous-norm-stats", cause, cure)


def norm_stats_record(found: FoundBase, stats: NormStatsSource) -> dict[str, Any]:
    """Where the norm stats of a job come from, for ``config.json``: ``norm_stats``."""
    place = {"source": name_within(found.located.path, stats.path), "source_sha256": stats.sha256}
    return {"of": "base", "asset_id": stats.asset_id, **place, **stats.record}


def fresh_names(patterns: Sequence[str], model: ModelConfig) -> tuple[str, ...]:
    """The parameters that ``sft.fresh`` means, tied ones together.

    Raises:
        WeightsError: a pattern means none.
    """
    names = list(state_dict_shapes(model))
    found, unmatched = matching({name: name for name in names}, patterns)
    if unmatched:
        cure = "name some of them, such as sft.fresh=[state_proj.*]"
        causes = [f"sft.fresh: the model has no parameter {pattern}" for pattern in unmatched]
        raise WeightsError([Problem("unknown-parameter", cause, cure) for cause in causes])
    for pair in TIED:
        found |= set(pair) if found & set(pair) else set()
    return tuple(name for name in names if name in found)


def plan_base(located: Located, model: ModelConfig, fresh: Sequence[str], *, verify: bool = True) -> Conversion:
    """How the weights of a base fill ``Pi0(model)``, all but `fresh` (patterns of parameters).

    Without `verify` the weights of a bundle are not hashed.

    Raises:
        BundleError: the weights are damaged, or a bundle is not the one that was sealed.
        WeightsError: they do not fit the model, are unsafe to read, or a pattern means no parameter.
    """
    with _cures_for_a_base():
        return plan_conversion(located, model, left_out=fresh_names(fresh, model), verify=verify)


def coverage_of(conversion: Conversion, config: JobConfig) -> Coverage:
    """What `conversion` fills of the model of a job."""
    chosen = fresh_names(config.sft.fresh, config.model)
    return Coverage(len(state_dict_shapes(config.model)), chosen, conversion.plan.unread)


def seal_base(found: FoundBase, config: JobConfig, norm_stats: Mapping[str, Any] | None = None) -> Base:
    """Hash the weights of a base (about 1.5 GB/s), for the lineage of what is trained from it.

    Args:
        found: the base.
        config: of the job.
        norm_stats: where the job's norm stats come from, if they are the base's.

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
    """What differs at `path` from the `files` of a base (`Base.files`), one sentence each."""
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
