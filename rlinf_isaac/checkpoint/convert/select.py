"""Which of the tensors in a file are the model's, and what they are called. Pure: keys and names only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from rlinf_isaac.checkpoint.convert.tensors import AnyTensor, Keys, Unstorable, shown
from rlinf_isaac.checkpoint.coverage import strip_wrappers
from rlinf_isaac.ground.errors import Problem, WeightsError

WHOLE = "."
"""As a state-dict key: everything in the file, names joined by dots."""

# Where trainers put the model within what they save, and what they put beside it.
_MODEL_KEYS = frozenset({"state_dict", "model", "module", "model_state_dict", "fsdp_checkpoint"})
_BESIDE = ("optim", "opt_", "lr_sched", "sched", "scaler", "grad_scaler", "rng", "random", "callbacks", "loops", "amp")
# Names of a plain model may well begin with "model."; only DDP's prefix cannot be a part of one.
_DDP_PREFIX = ("module.",)
_SHOWN = 8


def find_state_dict(tensors: Mapping[Keys, AnyTensor], key: str | None = None) -> Keys:
    """The keys that lead to the container that holds the model's state dict; empty for the whole file.

    Args:
        tensors: the tensors of a file by the keys that lead to them.
        key: dotted keys that lead to it, `WHOLE`, or None to find it: the one container of tensors that is no
            optimiser's, as deep as containers lead to a single one.

    Raises:
        WeightsError: there are several, or none of that name; both name what there is.
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
            raise WeightsError.of("several-state-dicts", cause, "say which is meant: --state-dict-key NAME")
        at = (*at, inner[0])


def _children(tensors: Mapping[Keys, AnyTensor], at: Keys) -> tuple[list[str], bool]:
    """The containers below one that may be a model's, and whether it holds tensors itself that are no mere numbers."""
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
    """Names without the wrappers of FSDP, DDP, torch.compile and activation checkpointing, and without given prefixes.

    Returns:
        Name -> the name it had; what was removed; prefixes that no name has, and names that have become one.
    """
    bare, stripped = strip_wrappers(names, prefixes=_DDP_PREFIX)
    problems = []
    for prefix in strip_prefix:
        matching = {name for name in bare if name.startswith(prefix) and name != prefix}
        if not matching:
            cure = f"leave it out or correct it; names begin like {_listed(list(bare)[:3])}"
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
    """The names that some pattern of `include` (if there are any) and none of `exclude` matches.

    Args:
        names: name -> the name it had in the file; a pattern may match either.
        include: patterns (``vision.*``).
        exclude: patterns.

    Returns:
        The names, in their order, and the patterns that match nothing.
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
    """The names that a pattern of ``keep_dtype`` matches, and the patterns that match nothing."""
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
    """Names that a pattern matches as they are or as they were in the file; patterns that match none."""
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
