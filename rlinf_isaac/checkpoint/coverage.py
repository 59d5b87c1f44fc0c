"""Do the tensors of a checkpoint and the parameters of a model match one to one? Pure, no torch: names and shapes only.

RLinf loads with ``strict=False`` and reports nothing, so a checkpoint with no matching name at all evaluates a randomly
initialised policy. Here everything short of a full match is a `WeightsError`.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlinf_isaac.checkpoint.header import TensorInfo, read_keys
from rlinf_isaac.config.schema import ModelConfig
from rlinf_isaac.ground.errors import BundleError, Problem, WeightsError
from rlinf_isaac.pi0.layout import TIED, UNREAD, state_dict_shapes

# Path segments that torch.compile, FSDP and activation checkpointing put around a module, at any depth.
_WRAPPER_SEGMENTS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module"})
# Prefixes of a whole state dict: DDP, LeRobot and RLinf policies, RLinf's distributed checkpoints.
_LEADING_PREFIXES = ("module.", "model.", "fsdp_checkpoint.", "state_dict.")
RLINF_PREFIXES = ("img.", "llm.")
"""What names of RLinf's own pi0 model begin with, and of no other's: `convert.openpi_rlinf` maps them to OpenPI's."""
_SHOWN = 5


@dataclass(frozen=True)
class LoadPlan:
    """How to fill a model from a checkpoint.

    Attributes:
        sources: model parameter -> name of the stored tensor with its value. Covers every parameter but `unread`.
        ties: model parameter that is not stored itself -> the model parameter it shares its value with.
        stripped: wrapper prefixes and segments that were removed from stored names, in order of discovery.
        unread: model parameters that are not stored and that nothing reads (`layout.UNREAD`): they become zeros.
    """

    sources: Mapping[str, str]
    ties: Mapping[str, str] = field(default_factory=dict)
    stripped: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """``812 of 813 parameters are stored; ...`` where some are not; empty otherwise."""
        if not self.unread:
            return ""
        count = len(self.sources) + len(self.unread)
        names = ", ".join(self.unread)
        return (
            f"{len(self.sources)} of {count} parameters are stored; {len(self.unread)} is not and is never read:"
            f" {names} becomes zeros"
        )


def check_coverage(source: str | Path, model: ModelConfig, *, optional: tuple[str, ...] = ()) -> list[Problem]:
    """What keeps the weights in `source` (a bundle, a directory or a safetensors file) from filling ``Pi0(model)``.

    `optional` are prefixes of stored names that may be left over (`layout.OPTIONAL_PREFIXES` for what only acts).

    Reads file headers only: milliseconds for a full-size checkpoint.
    """
    try:
        plan_model(read_keys(source), model, str(source), optional=optional)
    except BundleError as error:
        return list(error.problems)
    return []


def plan_model(
    stored: Mapping[str, TensorInfo],
    model: ModelConfig,
    source: str,
    *,
    optional: tuple[str, ...] = (),
    left_out: Collection[str] = (),
) -> LoadPlan:
    """How to fill ``Pi0(model)`` from stored tensors, as `plan_load`; all but the parameters that are `left_out`.

    Raises:
        WeightsError: as `plan_load`; or a tensor is not of a floating-point type.
    """
    shapes = state_dict_shapes(model)
    if left_out:
        bare, _ = strip_wrappers(stored, shapes)
        stored = {own: stored[own] for name, own in bare.items() if name not in left_out}
        shapes = {name: shape for name, shape in shapes.items() if name not in left_out}
    unread = tuple(name for name in UNREAD if name in shapes)
    plan = plan_load(stored, shapes, ties=TIED, optional=optional, unread=unread, source=source)
    for name, tensor in plan.sources.items():
        if not is_floating_point(stored[tensor].dtype):
            cause = f"{source}: {name} is {stored[tensor].dtype}, not a floating-point type"
            raise WeightsError.of("weights-dtype", cause, "use a checkpoint that is not quantised")
    return plan


def plan_load(
    stored: Mapping[str, TensorInfo],
    expected: Mapping[str, tuple[int, ...]],
    *,
    ties: Iterable[tuple[str, str]] = (),
    optional: tuple[str, ...] = (),
    unread: tuple[str, ...] = (),
    source: str = "checkpoint",
) -> LoadPlan:
    """Match stored tensors and model parameters one to one.

    Args:
        stored: name -> dtype and shape of the checkpoint's tensors (`header.read_keys`).
        expected: name -> shape of the model's parameters and buffers (its state dict).
        ties: pairs of names that share one tensor, according to the model or the checkpoint's manifest; a stored one
            stands for the other.
        optional: prefixes of stored names that the model may do without.
        unread: names of the model that need not be stored, because nothing reads them.
        source: what to call the checkpoint in messages.

    Raises:
        WeightsError: another framework's layout; or names missing, unexpected or of another shape, all of them counted.
    """
    canonical, stripped = strip_wrappers(stored, expected)
    _refuse_rlinf_layout(canonical, source)

    shared: dict[str, str] = {}
    for pair in ties:
        for name, other in (pair, pair[::-1]):
            if name in expected and name not in canonical and other in canonical:
                shared[name] = other
    sources = {name: canonical[shared.get(name, name)] for name in expected if shared.get(name, name) in canonical}

    absent = expected.keys() - sources.keys()
    unstored = tuple(name for name in unread if name in absent)
    missing = sorted(absent - set(unstored))
    left_over = canonical.keys() - expected.keys() - set(shared.values())
    unexpected = sorted(name for name in left_over if not name.startswith(optional))
    misshapen = [
        f"{name} {list(stored[sources[name]].shape)} instead of {list(shape)}"
        for name, shape in sorted(expected.items())
        if name in sources and stored[sources[name]].shape != tuple(shape)
    ]
    if missing or unexpected or misshapen:
        parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)]
        details = "".join(f"\n  {_abridge(label, names)}" for label, names in parts if names)
        raise WeightsError.of(
            "weights-keys" if missing or unexpected else "weights-shapes",
            f"{source} does not fit the model ({len(stored)} tensors stored, {len(expected)} expected):{details}",
            "use the checkpoint's own config, or the checkpoint of this model",
        )
    return LoadPlan(sources, {name: other for name, other in shared.items() if other in expected}, stripped, unstored)


def strip_wrappers(
    stored: Iterable[str], expected: Iterable[str] = (), *, prefixes: Sequence[str] = _LEADING_PREFIXES
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Remove what FSDP, DDP, torch.compile and RLinf put around parameter names.

    A leading prefix (one of `prefixes`) goes only if most stored names have it and most expected ones do not.

    Returns:
        Name without wrappers -> stored name, and what was removed.

    Raises:
        WeightsError: two stored names become the same.
    """
    stored, expected = list(stored), list(expected)
    names = {name: ".".join(part for part in name.split(".") if part not in _WRAPPER_SEGMENTS) for name in stored}
    stripped = sorted({part for name in stored for part in name.split(".") if part in _WRAPPER_SEGMENTS})
    while prefix := next((p for p in prefixes if _most(names.values(), p) and not _most(expected, p)), None):
        names = {name: bare.removeprefix(prefix) for name, bare in names.items()}
        stripped.append(prefix.removesuffix("."))
    canonical: dict[str, str] = {}
    for name, bare in names.items():
        if bare in canonical:
            cause = f"the checkpoint holds two models: {canonical[bare]} and {name} are both {bare}"
            raise WeightsError.of("two-models", cause, "store one of them alone")
        canonical[bare] = name
    return canonical, tuple(stripped)


def is_floating_point(dtype: str) -> bool:
    """Whether safetensors' name of a dtype (``F32``, ``BF16``, ``F8_E4M3``) is that of a real floating-point type."""
    return dtype.startswith(("F", "BF"))


def _most(names: Iterable[str], prefix: str) -> bool:
    flags = [name.startswith(prefix) for name in names]
    return 2 * sum(flags) > len(flags)


def _refuse_rlinf_layout(names: Iterable[str], source: str) -> None:
    """Raise WeightsError where names (without wrappers) are those of RLinf's own pi0 model, ``img.*`` and ``llm.*``."""
    example = next((name for name in sorted(names) if name.startswith(RLINF_PREFIXES)), None)
    if example is not None:
        cause = f"{source} has the layout of RLinf's openpi_rlinf models ({example}), not OpenPI's"
        cure = (
            "make a bundle of it, which has OpenPI's: "
            f"rlinf-isaac bundle make {shlex.quote(source)} --step 0 --norm-stats NORM_STATS"
        )
        raise WeightsError.of("rlinf-layout", cause, cure)


def _abridge(label: str, names: list[str]) -> str:
    more = f", ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {label}: {', '.join(names[:_SHOWN])}{more}"
