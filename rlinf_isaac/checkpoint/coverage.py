"""Checks that the tensors of a checkpoint and the parameters of a model match one to one, by names and shapes.

RLinf loads with ``strict=False`` and reports nothing, so with a checkpoint of which no name matches it evaluates a
randomly initialised policy. Here anything but a full match is a `WeightsError`. This module does not need torch.
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
# Prefixes that most names of a state dict may have: of DDP, LeRobot and RLinf policies, and RLinf's distributed
# checkpoints.
_LEADING_PREFIXES = ("module.", "model.", "fsdp_checkpoint.", "state_dict.")
RLINF_PREFIXES = ("img.", "llm.")
"""Prefixes of the names in RLinf's own pi0 model; no other layout has them. `convert.openpi_rlinf` maps the names to
OpenPI's."""
_SHOWN = 5


@dataclass(frozen=True)
class LoadPlan:
    """How to fill a model from a checkpoint.

    Attributes:
        sources: model parameter -> name of the stored tensor with its value. Has every parameter except `unread`.
        ties: model parameter that is not stored itself -> the model parameter whose value it shares.
        stripped: wrapper prefixes and segments that were removed from stored names, in order of discovery.
        unread: model parameters that are not stored and that nothing reads (`layout.UNREAD`); they become zeros.
    """

    sources: Mapping[str, str]
    ties: Mapping[str, str] = field(default_factory=dict)
    stripped: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """``812 of 813 parameters are stored; ...``, or an empty text if all are stored."""
        if not self.unread:
            return ""
        count = len(self.sources) + len(self.unread)
        names = ", ".join(self.unread)
        return (
            f"{len(self.sources)} of {count} parameters are stored; {len(self.unread)} is not and is never read:"
            f" {names} becomes zeros"
        )


def check_coverage(source: str | Path, model: ModelConfig, *, optional: tuple[str, ...] = ()) -> list[Problem]:
    """The problems that would keep ``Pi0(model)`` from being loaded from `source`, a bundle, directory or file.

    `optional` are prefixes of stored names that the model need not have (`layout.OPTIONAL_PREFIXES` for a policy that
    is not trained further). Only file headers are read, which takes milliseconds for a full-size checkpoint.
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
    """`plan_load` for ``Pi0(model)`` without the parameters in `left_out`.

    Raises:
        WeightsError: as `plan_load`; or a tensor does not have a floating-point type.
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
        ties: pairs of names that share one tensor, according to the model or the checkpoint's manifest. If only one of
            a pair is stored, it is used for both.
        optional: prefixes of stored names that the model need not have.
        unread: names of the model that need not be stored, because nothing reads them.
        source: the name of the checkpoint in messages.

    Raises:
        WeightsError: the layout is another framework's, names are missing or unexpected, or shapes differ. The message
            counts all of them.
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
    """Remove the prefixes and path segments that FSDP, DDP, torch.compile and RLinf add to parameter names.

    A leading prefix (one of `prefixes`) is removed only if most stored names have it and most expected names do not.

    Returns:
        Name without wrappers -> stored name, and the prefixes and segments that were removed.

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
    """Whether a dtype in safetensors' spelling (``F32``, ``BF16``, ``F8_E4M3``) is a real floating-point type."""
    return dtype.startswith(("F", "BF"))


def _most(names: Iterable[str], prefix: str) -> bool:
    flags = [name.startswith(prefix) for name in names]
    return 2 * sum(flags) > len(flags)


def _refuse_rlinf_layout(names: Iterable[str], source: str) -> None:
    """Raise WeightsError if names (without wrappers) are those of RLinf's own pi0 model, ``img.*`` and ``llm.*``."""
    example = next((name for name in sorted(names) if name.startswith(RLINF_PREFIXES)), None)
    if example is not None:
        cause = f"{source} has the layout of RLinf's openpi_rlinf models ({example}), not OpenPI's"
        cure = (
            "make a bundle of it, which converts it to OpenPI's layout: "
            f"rlinf-isaac bundle make {shlex.quote(source)} --step 0 --norm-stats NORM_STATS"
        )
        raise WeightsError.of("rlinf-layout", cause, cure)


def _abridge(label: str, names: list[str]) -> str:
    more = f", ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {label}: {', '.join(names[:_SHOWN])}{more}"
