"""Writing what a plan says: each file in one pass, hashed on the way, in memory that does not grow with the file."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rlinf_isaac.checkpoint.convert import layout
from rlinf_isaac.checkpoint.convert.plan import Output, OutputFile
from rlinf_isaac.checkpoint.convert.source import PIECE, Buffer, SourceFiles
from rlinf_isaac.checkpoint.convert.tensors import Storage
from rlinf_isaac.checkpoint.header import INDEX_FILE

Advance = Callable[[int], None]
Inspect = Callable[[Output, Buffer], None]


def write_files(
    files: Iterable[OutputFile],
    directory: Path,
    *,
    checked: Iterable[Storage] = (),
    hashes: bool = True,
    advance: Advance = lambda count: None,
    inspect: Inspect | None = None,
) -> dict[str, str | None]:
    """Write safetensors files, and the index where there are several, into an existing directory.

    Args:
        files: what to write.
        directory: where.
        checked: storages to compare with their checksums even if no tensor uses them.
        hashes: compute the sha256 of each file.
        advance: called with the number of bytes written, or read for a checksum alone, as they are.
        inspect: called with every piece of every tensor as it is written; may raise.

    Returns:
        File name -> sha256, or None without `hashes`.

    Raises:
        WeightsError: the source is damaged or changes meanwhile, or a value does not fit its new dtype.
        OSError: the disk is full or fails.
    """
    files = tuple(files)
    digests: dict[str, str | None] = {}
    with SourceFiles() as source:
        for file in files:
            digests[file.name] = _write_file(file, directory / file.name, source, hashes, advance, inspect)
        for storage in checked:
            advance(source.check(storage))
        source.raise_if_changed()
    for name, content in _index(files).items():
        (directory / name).write_bytes(content)
        digests[name] = hashlib.sha256(content).hexdigest() if hashes else None
    return digests


def planned_digests(files: Iterable[OutputFile], *, advance: Advance = lambda count: None) -> dict[str, str]:
    """What `write_files` would return, without writing: what is there already can be told from it.

    Raises:
        WeightsError: the source is damaged or changes meanwhile, or a value does not fit its new dtype.
    """
    files = tuple(files)
    digests = {}
    with SourceFiles() as source:
        for file in files:
            digest = hashlib.sha256(file.header)
            for tensor in file.tensors:
                for piece in _pieces(tensor, source):
                    digest.update(piece)
                    advance(len(piece))
            digests[file.name] = digest.hexdigest()
        source.raise_if_changed()
    return digests | {name: hashlib.sha256(content).hexdigest() for name, content in _index(files).items()}


def _index(files: Sequence[OutputFile]) -> dict[str, bytes]:
    """Name and content of the index; empty for a single file."""
    if len(files) == 1:
        return {}
    total = sum(tensor.nbytes for file in files for tensor in file.tensors)
    return {INDEX_FILE: layout.index(((file.name, [t.name for t in file.tensors]) for file in files), total)}


def _write_file(
    file: OutputFile, path: Path, source: SourceFiles, hashes: bool, advance: Advance, inspect: Inspect | None
) -> str | None:
    digest = hashlib.sha256(file.header) if hashes else None
    with open(path, "wb") as stream:
        stream.write(file.header)
        for tensor in file.tensors:
            for piece in _pieces(tensor, source):
                if inspect is not None:
                    inspect(tensor, piece)
                if digest is not None:
                    digest.update(piece)
                stream.write(piece)
                advance(len(piece))
    return digest.hexdigest() if digest else None


def _pieces(tensor: Output, source: SourceFiles) -> Iterator[Buffer]:
    if not tensor.is_cast:
        return source.pieces(tensor.source)
    from rlinf_isaac.checkpoint.convert.cast import cast_pieces  # torch, which nothing else here needs

    return cast_pieces(tensor, source.pieces(tensor.source))


@contextmanager
def hashing(files: Iterable[Path]) -> Iterator[Callable[[], Mapping[Path, str]]]:
    """Hash files in a thread while the block does something else.

    sha256 takes a file in its own order, safetensors stores tensors in another, so this is a second reading of the
    same cached pages, on another core.

    Yields:
        A function that waits for the result: file -> sha256. Raises OSError where a file cannot be read.
    """
    digests: dict[Path, str] = {}
    errors: list[OSError] = []
    stop = threading.Event()

    def work() -> None:
        buffer = memoryview(bytearray(PIECE))
        try:
            for path in files:
                digest = hashlib.sha256()
                with open(path, "rb", buffering=0) as file:
                    while not stop.is_set() and (count := file.readinto(buffer)):
                        digest.update(buffer[:count])
                digests[path] = digest.hexdigest()
        except OSError as error:
            errors.append(error)

    def result() -> Mapping[Path, str]:
        thread.join()
        if errors:
            raise errors[0]
        return digests

    thread = threading.Thread(target=work, name="sha256", daemon=True)
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join()
