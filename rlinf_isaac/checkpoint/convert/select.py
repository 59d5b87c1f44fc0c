"""Chooses the tensors of the model among those of a file, and their names. Only keys and names are looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from rlinf_isaac.checkpoint.convert.tensors import AnyTensor, Keys, Unstorable, shown
from rlinf_isaac.checkpoint.coverage import strip_wrappers
from rlinf_isaac.ground.errors import Problem, WeightsError

WHOLE = "."
"""The state-dict key that means the whole file. The name of a tensor is then all of its keys, joined by dots."""

# Keys under which trainers save the model, and prefixes of the keys of what they save beside it.
_MODEL_KEYS = frozenset({"state_dict", "model", "module", "model_state_dict", "fsdp_checkpoint"})
_BESIDE = ("optim", "opt_", "lr_sched", "sched", "scaler", "grad_scaler", "rng", "random", "callbacks", "loops", "amp")
# Only DDP's prefix is removed: names of a plain model may well begin with "model.", but never with "module.".
_DDP_PREFIX = ("module.",)
_SHOWN = 8


def find_state_dict(tensors: Mapping[Keys, AnyTensor], key: str | None = None) -> Keys:
    """The keys that lead to the model's state dict; they are empty if it is the whole file.

    Args:
        tensors: the keys that lead to a tensor of the file -> the tensor.
        key: dotted keys of the state dict, `WHOLE`, or None to look for it. It is then the only container of tensors
            that does not belong to an optimiser; if it holds only another container, that one is taken instead.

    Raises:
        WeightsError: there are several state dicts, or none with this key. The message names those that exist.
    """
    if key == WHOLE:
        return ()
    if key is not None:
        for keys in tensors:
            for depth in range(1, len(keys)):
                if ".".join(keys[:depth]) == key:
                    return keys[:depth]
        cause = f"the file has no state dict at {key}"
        raise WeightsError.of("state-dict-key", cause, f"name one of: {_listed(_containers(tensors))}")
    at: Keys = ()
    while True:
        inner, loose = _children(tensors, at)
        known = [name for name in inner if name in _MODEL_KEYS]
        if not inner or (not known and (loose or at)):
            return at
        if len(inner) > 1 and (known or not at):
            cause = f"the file holds several state dicts: {_listed('.'.join((*at, name)) for name in inner)}"
            raise WeightsError.of("several-state-dicts", cause, "choose one: --state-dict-key NAME")
        at = (*at, inner[0])


def _children(tensors: Mapping[Keys, AnyTensor], at: Keys) -> tuple[list[str], bool]:
    """The containers in the one at `at` that may hold a model, and whether it holds tensors with several elements."""
    inner: dict[str, None] = {}
    loose = False
    for keys, tensor in tensors.items():
        if keys[: len(at)] != at:
            continue
        if len(keys) - len(at) > 1:
            name = keys[len(at)]
            if not name.lower().startswith(_BESIDE):
                inner[name] = None
        else:
            loose |= isinstance(tensor, Unstorable) or math.prod(tensor.shape) != 1
    return list(inner), loose


def _containers(tensors: Mapping[Keys, AnyTensor]) -> list[str]:
    return sorted({".".join(keys[:depth]) for keys in tensors for depth in range(1, min(len(keys), 4))}) or [WHOLE]


def rename(
    names: Iterable[str], strip_prefix: Sequence[str] = ()
) -> tuple[dict[str, str], tuple[str, ...], list[Problem]]:
    """Remove the wrappers of FSDP, DDP, torch.compile and activation checkpointing from names, and the given prefixes.

    Returns:
        New name -> old name; the wrappers and prefixes that were removed; a problem for each prefix that no name has or
        that makes two names equal.
    """
    bare, stripped = strip_wrappers(names, prefixes=_DDP_PREFIX)
    problems = []
    for prefix in strip_prefix:
        matching = {name for name in bare if name.startswith(prefix) and name != prefix}
        if not matching:
            cure = f"leave it out or correct it; names are, for example, {_listed(list(bare)[:3])}"
            problems.append(Problem("prefix-matches-nothing", f"--strip-prefix {prefix} begins no tensor's name", cure))
            continue
        renamed = {name: name.removeprefix(prefix) if name in matching else name for name in bare}
        if len(set(renamed.values())) < len(renamed):
            cause = f"without the prefix {prefix} two tensors have the same name"
            problems.append(Problem("duplicate-names", cause, "use --include or --exclude, or keep the prefix"))
            continue
        bare = {renamed[name]: stored for name, stored in bare.items()}
        stripped = (*stripped, prefix)
    return bare, stripped, problems


def choose(
    names: Mapping[str, str], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[list[str], list[Problem]]:
    """The names that match a pattern of `include`, if there are any, and no pattern of `exclude`.

    Args:
        names: name -> name in the file; a pattern may match either.
        include: patterns (``vision.*``).
        exclude: patterns.

    Returns:
        The names in their order, and a problem for each pattern that matches nothing.
    """
    included, unknown = matching(names, include) if include else (set(names), [])
    excluded, superfluous = matching(names, exclude)
    cure = "leave it out or correct it"
    problems = [
        Problem("include-matches-nothing", f"--include {shown(pattern)} matches no tensor of the checkpoint", cure)
        for pattern in unknown
    ]
    problems += [
        Problem("exclude-matches-nothing", f"--exclude {shown(pattern)} matches no tensor of the checkpoint", cure)
        for pattern in superfluous
    ]
    return [name for name in names if name in included and name not in excluded], problems


def exempt_from_cast(names: Iterable[str], patterns: Iterable[str]) -> tuple[set[str], list[Problem]]:
    """The names that match a pattern of ``keep_dtype``, and a problem for each pattern that matches nothing."""
    exempt, unmatched = matching({name: name for name in names}, patterns)
    return exempt, [
        Problem(
            "keep-dtype-matches-nothing",
            f"--keep-dtype {pattern} matches no tensor of the checkpoint",
            "leave it out or correct it",
        )
        for pattern in unmatched
    ]


def matching(names: Mapping[str, str], patterns: Iterable[str]) -> tuple[set[str], list[str]]:
    """The names that match a pattern by themselves or by their name in the file, and the patterns without a match."""
    found: set[str] = set()
    unmatched = []
    for pattern in patterns:
        hits = {name for name, stored in names.items() if fnmatchcase(name, pattern) or fnmatchcase(stored, pattern)}
        found |= hits
        if not hits:
            unmatched.append(pattern)
    return found, unmatched


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(shown, names[:_SHOWN])) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
