"""Plans what a conversion writes: names, dtypes, files and ties. No file is read here, and torch is not imported."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlinf_isaac.checkpoint.convert.layout import file_names, file_order, header, split
from rlinf_isaac.checkpoint.convert.select import choose, exempt_from_cast, find_state_dict, rename
from rlinf_isaac.checkpoint.convert.tensors import (
    AnyDense,
    AnyTensor,
    Keys,
    StoredTensor,
    Unstorable,
    ZeroTensor,
    bytes_of,
    shown,
)
from rlinf_isaac.checkpoint.header import MAX_HEADER_BYTES, TensorInfo
from rlinf_isaac.ground.errors import Problem, WeightsError

CASTS = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
_CASTABLE = frozenset({"F64", "F32", "F16", "BF16"})  # not 8-bit floats, which mean nothing without their scales


@dataclass(frozen=True)
class Options:
    """Changes that a conversion makes beyond copying.

    Attributes:
        dtype: ``bf16``, ``fp16`` or ``fp32`` casts all floating-point tensors of 16 to 64 bits; ``keep`` casts none.
        keep_dtype: patterns of tensors that are not cast.
        include: patterns of the tensors to write; if empty, all are written.
        exclude: patterns of tensors to leave out.
        strip_prefix: prefixes to remove from names, one after the other, after the wrappers.
        state_dict_key: dotted keys of the state dict; None means that it is looked for.
        max_shard_size: bytes of tensors per file; None means one file.
    """

    dtype: str = "keep"
    keep_dtype: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    strip_prefix: tuple[str, ...] = ()
    state_dict_key: str | None = None
    max_shard_size: int | None = None


@dataclass(frozen=True)
class Output:
    """One tensor to write.

    Attributes:
        name: name in the output.
        stored: name in the source: its keys, joined by dots.
        dtype: dtype in the output, in safetensors' spelling.
        source: the tensor of the source that has the values.
    """

    name: str
    stored: str
    dtype: str
    source: AnyDense | ZeroTensor

    @property
    def info(self) -> TensorInfo:
        """Its dtype and shape in the output."""
        return TensorInfo(self.dtype, self.source.shape)

    @property
    def nbytes(self) -> int:
        """Its size in the output in bytes."""
        return bytes_of(self.dtype, self.source.shape)

    @property
    def is_cast(self) -> bool:
        """Whether its values get another dtype."""
        return self.dtype != self.source.dtype


@dataclass(frozen=True)
class OutputFile:
    """A safetensors file to write: its name, its header, and its tensors in the order in which it holds them."""

    name: str
    header: bytes
    tensors: tuple[Output, ...]

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes."""
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True)
class Plan:
    """A conversion that is planned; nothing has been written.

    Attributes:
        files: the one file, or the shards.
        ties: name that is not stored -> name of the stored tensor with which it shares its memory.
        overlapping: groups of names of tensors that share a part of their memory; each tensor is written completely.
        state_dict: keys that lead to the state dict in the source, joined by dots.
        stripped: wrappers and prefixes that were removed from names.
        dropped: names in the source that are not written.
        others: number of entries of the source that are not tensors.
        not_cast: dtype -> number of floating-point tensors that keep this dtype although a cast is asked for.
    """

    files: tuple[OutputFile, ...]
    ties: Mapping[str, str] = field(default_factory=dict)
    overlapping: tuple[tuple[str, ...], ...] = ()
    state_dict: str = ""
    stripped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    others: int = 0
    not_cast: Mapping[str, int] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Output]:
        """All tensors, in the order in which they are written."""
        return [tensor for file in self.files for tensor in file.tensors]

    @property
    def total_size(self) -> int:
        """Size of all tensors in bytes (``metadata.total_size`` of the index)."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        """Size of all files in bytes."""
        return sum(file.nbytes for file in self.files)

    @property
    def expanded(self) -> list[Output]:
        """Tensors that are larger than their storage, because torch's ``expand`` stores a repeated element once."""
        return [tensor for tensor in self.tensors if tensor.source.stored_bytes < tensor.source.nbytes]

    def summary(self) -> dict[str, Any]:
        """A JSON-ready summary for people and for programs."""
        tensors = self.tensors
        return {
            "files": {file.name: {"tensors": len(file.tensors), "bytes": file.nbytes} for file in self.files},
            "tensors": len(tensors),
            "parameters": sum(math.prod(tensor.source.shape) for tensor in tensors),
            "bytes": self.total_size,
            "dtypes": dict(sorted(Counter(tensor.dtype for tensor in tensors).items())),
            "cast": dict(sorted(Counter(f"{t.source.dtype} -> {t.dtype}" for t in tensors if t.is_cast).items())),
            "not_cast": dict(self.not_cast),
            "renamed": sum(tensor.name != tensor.stored for tensor in tensors),
            "state_dict": self.state_dict,
            "stripped": list(self.stripped),
            "ties": dict(self.ties),
            "overlapping": [list(names) for names in self.overlapping],
            "dropped": list(self.dropped),
            "others": self.others,
        }


def plan_conversion(
    tensors: Mapping[Keys, AnyTensor],
    options: Options = Options(),
    *,
    recorded_ties: Mapping[str, str] | None = None,
    others: int = 0,
) -> Plan:
    """Plan the conversion of a file's tensors.

    Args:
        tensors: the keys that lead to a tensor -> the tensor, in the order of the file.
        options: changes to make beyond copying.
        recorded_ties: name that is not stored -> name of the stored tensor that it shares, from a safetensors file.
        others: number of entries of the file that are not tensors.

    Raises:
        WeightsError: it has every problem: several state dicts, patterns that match nothing, tensors that safetensors
            cannot hold, names that collide.
    """
    state_dict = find_state_dict(tensors, options.state_dict_key)
    found: dict[str, AnyTensor] = {}
    problems = []
    for keys, tensor in tensors.items():
        if keys[: len(state_dict)] == state_dict:
            name = ".".join(keys[len(state_dict) :])
            if name in found:
                cause = f"two tensors of the file are called {shown(name)}"
                problems.append(Problem("duplicate-names", cause, "use --state-dict-key to name one of the two dicts"))
            found[name] = tensor
    found |= {name: found[kept] for name, kept in (recorded_ties or {}).items() if kept in found and name not in found}
    names, stripped, more = rename(found, options.strip_prefix)
    chosen, unmatched = choose(names, options.include, options.exclude)
    kept_dtypes, unknown = exempt_from_cast(names, options.keep_dtype)
    problems += [*more, *unmatched, *unknown]
    if not chosen:
        problems.append(Problem("empty-weights", "no tensor is left to write", "include more, or exclude less"))
    outputs = []
    for name in chosen:
        source = found[names[name]]
        if isinstance(source, Unstorable):
            cause = f"{shown(names[name])} is {source.kind}"
            problems.append(Problem("not-a-dense-tensor", cause, f"{source.cure}; or leave it out with --exclude"))
            continue
        dtype = output_dtype(options, source.dtype, exempt=name in kept_dtypes)
        outputs.append(Output(name, ".".join((*state_dict, names[name])), dtype, source))
    if problems:
        raise WeightsError(problems)
    files, ties, overlapping = plan_files(outputs, options.max_shard_size)
    dropped = [".".join(keys) for keys in tensors if keys[: len(state_dict)] != state_dict]
    left_out = names.keys() - set(chosen)
    dropped += [".".join((*state_dict, stored)) for name, stored in names.items() if name in left_out]
    left = Counter(output.dtype for output in outputs if options.dtype in CASTS and _is_tiny_float(output.dtype))
    return Plan(files, ties, overlapping, ".".join(state_dict), stripped, tuple(dropped), others, left)


def plan_files(
    outputs: Sequence[Output], max_shard_size: int | None = None, *, note_ties: bool = True
) -> tuple[tuple[OutputFile, ...], dict[str, str], tuple[tuple[str, ...], ...]]:
    """Distribute tensors over files. Equal views of one storage are stored once, under the name that sorts first.

    Args:
        outputs: the tensors, in the order in which shards are filled.
        max_shard_size: bytes of tensors per file; None means one file.
        note_ties: write ties into the metadata of the file, as huggingface_hub does.

    Returns:
        The files, the ties (name that is not stored -> name that is), and groups of tensors that overlap otherwise.

    Raises:
        WeightsError: a name cannot be stored, or there are too many.
    """
    ties = _ties(outputs)
    stored = {output.name: output for output in outputs if output.name not in ties}
    shards = split({name: output.nbytes for name, output in stored.items()}, max_shard_size)
    files = []
    for file_name, names in zip(file_names(len(shards)), shards, strict=True):
        infos = {name: stored[name].info for name in names}
        order = file_order(infos)
        noted = {name: kept for name, kept in sorted(ties.items()) if note_ties and kept in infos}
        try:
            head = header({name: infos[name] for name in order}, {"format": "pt"} | noted)
        except UnicodeEncodeError as error:
            text = error.object[max(0, error.start - 40) : error.end + 40]
            cause = f"the name of a tensor is not Unicode text, around {text!a}"
            raise WeightsError.of("bad-tensor-name", cause, "rename that tensor where it was made") from error
        if len(head) - 8 > MAX_HEADER_BYTES:
            cause = f"the names of {len(order)} tensors do not fit into the header of {file_name}"
            raise WeightsError.of("header-too-large", cause, "write several shards: --max-shard-size 5GB")
        files.append(OutputFile(file_name, head, tuple(stored[name] for name in order)))
    for name in (*stored, *ties):
        if name in ("", "__metadata__", "format"):
            cause = f"a tensor is called {name!r}, which safetensors cannot hold"
            raise WeightsError.of("bad-tensor-name", cause, "rename that tensor where it was made")
    return tuple(files), ties, _overlapping(stored.values())


def output_dtype(options: Options, dtype: str, *, exempt: bool) -> str:
    """The dtype of a tensor in the output. Only ordinary floating-point types that are not exempt are cast."""
    return CASTS[options.dtype] if options.dtype in CASTS and dtype in _CASTABLE and not exempt else dtype


def _is_tiny_float(dtype: str) -> bool:
    """Whether this is a floating-point type of at most 8 bits, whose values mean nothing without their scales."""
    return dtype.startswith(("F4", "F6", "F8"))


def _ties(outputs: Iterable[Output]) -> dict[str, str]:
    """For tensors that are the same view of the same storage: name that is left out -> name that is stored."""
    owners: dict[Any, str] = {}
    ties = {}
    for output in sorted(outputs, key=lambda output: output.name):
        if math.prod(output.source.shape) == 0:
            continue
        owner = owners.setdefault((output.source, output.dtype), output.name)
        if owner != output.name:
            ties[output.name] = owner
    return ties


def _overlapping(outputs: Iterable[Output]) -> tuple[tuple[str, ...], ...]:
    """Groups of names of different tensors whose bytes overlap in one storage."""
    views: dict[Any, list[tuple[tuple[int, int], str]]] = {}
    for output in outputs:
        if isinstance(output.source, StoredTensor) and output.source.nbytes:
            views.setdefault(output.source.storage, []).append((output.source.span, output.name))
    groups = []
    for members in views.values():
        group: list[str] = []
        end = -1
        for (begin, stop), name in sorted(members):
            if begin >= end and group:
                groups.append(tuple(group))
                group = []
            group.append(name)
            end = max(end, stop)
        groups.append(tuple(group))
    return tuple(sorted(group for group in groups if len(group) > 1))
