"""Is what was written what the source holds? Needs torch.

What was written is read again by safetensors, which had no part in the writing. A tensor that was copied whole has the
CRC-32 that the directory of the source's zip gives for it: that is read by `zipfile`, and which record is whose by the
look at the pickle (`torch_file`), so that torch had no part in it. All others are compared, bit by bit, with what torch
reads of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from rlinf_isaac.checkpoint.convert.check import crc32
from rlinf_isaac.checkpoint.convert.plan import Output, Plan
from rlinf_isaac.checkpoint.convert.read import Stored
from rlinf_isaac.checkpoint.convert.source import Source, as_bytes, blocks, torch_dtype
from rlinf_isaac.checkpoint.convert.tensors import StoredTensor
from rlinf_isaac.checkpoint.header import weight_files
from rlinf_isaac.errors import BundleError, ConversionFailed, WeightsError

_BLOCK = 1 << 24  # elements compared at once


def compare(stored: Stored, plan: Plan, directory: Path, advance: Callable[[int], None] = lambda count: None) -> None:
    """Compare every tensor of the files in `directory` with the source.

    Args:
        stored: the source.
        plan: what was to be written.
        directory: where it was written.
        advance: called with the number of bytes compared.

    Raises:
        ConversionFailed: a tensor is missing or differs.
        WeightsError: torch cannot read the source.
    """
    try:
        if [path.name for path in weight_files(directory)] != sorted(file.name for file in plan.files):
            raise ConversionFailed(f"{directory} does not hold the files that were written")
        checksums = _checksums(stored)
        with Source(stored) as source:
            for file in plan.files:
                with safe_open(directory / file.name, framework="pt") as written:
                    if set(written.keys()) != {tensor.name for tensor in file.tensors}:
                        raise ConversionFailed(f"{file.name} does not hold the tensors that were written")
                    for tensor in file.tensors:
                        found = _mapped(written, tensor)
                        checksum = None if tensor.is_cast else _checksum(tensor, checksums)
                        if checksum is None:
                            _compare_one(tensor, found, source.tensor(tensor.source))
                        elif (found.dtype, found.shape) != (torch_dtype(tensor.dtype), tensor.source.shape) or (
                            _crc32(found) != checksum
                        ):
                            raise _wrong(tensor)
                        advance(tensor.nbytes)
    except WeightsError:
        raise  # a BundleError as well, but of the source
    except (SafetensorError, BundleError) as error:
        raise ConversionFailed(f"what was written cannot be read again: {error}") from error


def _mapped(written: Any, tensor: Output) -> torch.Tensor:
    try:
        return cast(torch.Tensor, written.get_tensor(tensor.name))
    except (RuntimeError, MemoryError) as error:
        raise ConversionFailed(f"{tensor.name} was written, but cannot be read again: {error}") from error


def _compare_one(output: Output, written: torch.Tensor, expected: torch.Tensor) -> None:
    kept = written.dtype == expected.dtype
    same = written.shape == expected.shape and kept != output.is_cast
    if not same or not all(_equal(*pair, kept) for pair in _blocks(written, expected)):
        raise _wrong(output)


def _wrong(output: Output) -> ConversionFailed:
    return ConversionFailed(f"{output.name} was written wrongly: it is not {output.stored} of the source")


def _checksums(stored: Stored) -> dict[str, int]:
    """CRC-32 by the name of a storage; of distributed checkpoints none: there a part has one, not the tensor."""
    return {record.name: record.crc32 for record in stored.records if stored.weights.format == "torch"}


def _checksum(output: Output, checksums: dict[str, int]) -> int | None:
    """The checksum of a tensor that is the whole of its storage, in order."""
    tensor = output.source
    whole = isinstance(tensor, StoredTensor) and tensor.is_contiguous and tensor.nbytes == tensor.storage.size
    return checksums.get(tensor.storage.name) if isinstance(tensor, StoredTensor) and whole else None


def _crc32(tensor: torch.Tensor) -> int:
    checksum = 0
    for block in blocks(tensor):
        checksum = crc32(as_bytes(block), checksum)
    return checksum


def _equal(written: torch.Tensor, expected: torch.Tensor, kept: bool) -> bool:
    if kept:
        return torch.equal(_bits(written), _bits(expected))
    expected = expected.to(written.dtype)
    # How NaNs look may depend on the width of the processor's vectors.
    either = (written == expected) | (written.isnan() & expected.isnan())
    return torch.equal(written, expected) or bool(either.all())


def _blocks(one: torch.Tensor, other: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Parts of two tensors of one shape, in pairs: what repeats its elements would not fit into memory when dense."""
    if one.ndim == 0 or one.numel() <= _BLOCK:
        yield one, other
    elif one.numel() // len(one) > _BLOCK:
        for pair in zip(one, other, strict=True):
            yield from _blocks(*pair)
    else:
        rows = max(1, _BLOCK // (one.numel() // len(one)))
        yield from zip(one.split(rows), other.split(rows), strict=True)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
