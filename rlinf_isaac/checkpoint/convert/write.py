"""Writes the files of a plan. Each file is written and hashed in one pass, and memory does not grow with its size.

torch is imported when something is written; the plan and its checks do not need it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.checkpoint.convert import layout
from rlinf_isaac.checkpoint.convert.plan import Output, OutputFile
from rlinf_isaac.checkpoint.convert.read import Stored
from rlinf_isaac.checkpoint.header import INDEX_FILE

if TYPE_CHECKING:
    import torch

    from rlinf_isaac.checkpoint.convert.source import Source

Advance = Callable[[int], None]
Inspect = Callable[[Output, "torch.Tensor"], None]


def write_files(
    files: Iterable[OutputFile],
    directory: Path,
    stored: Stored | None = None,
    *,
    checks: bool = True,
    hashes: bool = True,
    advance: Advance = lambda count: None,
    inspect: Inspect | None = None,
) -> dict[str, str | None]:
    """Write safetensors files into an existing directory, and their index if there are several.

    Args:
        files: the files to write.
        directory: the directory to write into.
        stored: the checkpoint that has the values; None if all tensors are computed.
        checks: compare the source with its checksums first.
        hashes: compute the sha256 of each file.
        advance: called with the number of bytes of each piece that was written.
        inspect: called with every block of every tensor before it is written; it may raise an exception.

    Returns:
        File name -> its sha256, or None without `hashes`.

    Raises:
        WeightsError: the source is damaged or is changed meanwhile, or a value does not fit its new dtype.
        OSError: the disk is full or fails.
    """
    files = tuple(files)
    digests: dict[str, str | None] = {}
    with _source(files, stored, checks) as source:
        for file in files:
            digests[file.name] = _write_file(file, directory / file.name, source, hashes, advance, inspect)
        source.raise_if_changed()
    for name, content in _index(files).items():
        (directory / name).write_bytes(content)
        digests[name] = hashlib.sha256(content).hexdigest() if hashes else None
    return digests


def planned_digests(
    files: Iterable[OutputFile], stored: Stored | None = None, *, advance: Advance = lambda count: None
) -> dict[str, str]:
    """The digests that `write_files` would return. Nothing is written; an existing output can be compared with them.

    Raises:
        WeightsError: the source is damaged or is changed meanwhile, or a value does not fit its new dtype.
    """
    files = tuple(files)
    digests = {}
    with _source(files, stored) as source:
        for file in files:
            digest = hashlib.sha256(file.header)
            for tensor in file.tensors:
                for _, piece in source.blocks(tensor):
                    digest.update(piece)
                    advance(len(piece))
            digests[file.name] = digest.hexdigest()
        source.raise_if_changed()
    return digests | {name: hashlib.sha256(content).hexdigest() for name, content in _index(files).items()}


def _index(files: Sequence[OutputFile]) -> dict[str, bytes]:
    """Name -> content of the index; empty for a single file."""
    if len(files) == 1:
        return {}
    total = sum(tensor.nbytes for file in files for tensor in file.tensors)
    return {INDEX_FILE: layout.index(((file.name, [t.name for t in file.tensors]) for file in files), total)}


def _write_file(
    file: OutputFile, path: Path, source: Source, hashes: bool, advance: Advance, inspect: Inspect | None
) -> str | None:
    digest = hashlib.sha256(file.header) if hashes else None
    with open(path, "wb") as stream:
        stream.write(file.header)
        for tensor in file.tensors:
            for block, piece in source.blocks(tensor):
                if inspect is not None:
                    inspect(tensor, block)
                if digest is not None:
                    digest.update(piece)
                stream.write(piece)
                advance(len(piece))
    return digest.hexdigest() if digest else None


def _source(files: Sequence[OutputFile], stored: Stored | None, checks: bool = True) -> Source:
    from rlinf_isaac.checkpoint.convert.source import Source

    return Source(stored, [tensor.source for file in files for tensor in file.tensors] if checks else None)
