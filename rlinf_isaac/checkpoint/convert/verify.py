"""Compares the written files with the source. This module needs torch.

The written files are read by safetensors, which had no part in writing them. A tensor that was copied unchanged from a
zip archive must have the CRC-32 of its record. `zipfile` reads this checksum, and `torch_file` finds the record of the
tensor, so that torch has no part in the comparison. All other tensors are compared, bit by bit, with the values that
torch reads from the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from rlinf_isaac.checkpoint.convert.check import crc32
from rlinf_isaac.checkpoint.convert.plan import Output, Plan
from rlinf_isaac.checkpoint.convert.read import Stored
from rlinf_isaac.checkpoint.convert.source import Source, as_bytes, blocks
from rlinf_isaac.checkpoint.convert.tensors import TORCH_NAMES, StoredTensor
from rlinf_isaac.checkpoint.header import weight_files
from rlinf_isaac.ground.errors import BundleError, ConversionFailed, WeightsError


def compare(stored: Stored, plan: Plan, directory: Path, advance: Callable[[int], None] = lambda count: None) -> None:
    """Compare every tensor of the files in `directory` with the source.

    Args:
        stored: the source.
        plan: the plan of the written files.
        directory: directory of the written files.
        advance: called with the number of bytes of each tensor that was compared.

    Raises:
        ConversionFailed: a tensor is missing or differs.
        WeightsError: torch cannot read the source.
    """
    try:
        if [path.name for path in weight_files(directory)] != sorted(file.name for file in plan.files):
            raise ConversionFailed(f"{directory} does not hold the files that were written")
        # Name of a storage -> its checksum. In a distributed checkpoint it is that of a part, and not of the tensor.
        checksums = {record.name: record.crc32 for record in stored.records if stored.weights.format == "torch"}
        with Source(stored) as source:
            for file in plan.files:
                with safe_open(directory / file.name, framework="pt") as written:
                    if set(written.keys()) != {tensor.name for tensor in file.tensors}:
                        raise ConversionFailed(f"{file.name} does not hold the tensors that were written")
                    for tensor in file.tensors:
                        if not _is_right(tensor, _mapped(written, tensor), source, checksums):
                            cause = f"{tensor.name} was written wrongly: it is not {tensor.stored} of the source"
                            raise ConversionFailed(cause)
                        advance(tensor.nbytes)
    except WeightsError:
        raise  # WeightsError is a BundleError, but it is about the source
    except (SafetensorError, BundleError) as error:
        raise ConversionFailed(f"the written files cannot be read again: {error}") from error


def _mapped(written: Any, tensor: Output) -> torch.Tensor:
    try:
        return cast(torch.Tensor, written.get_tensor(tensor.name))
    except (RuntimeError, MemoryError) as error:
        raise ConversionFailed(f"{tensor.name} was written, but cannot be read again: {error}") from error


def _is_right(output: Output, written: torch.Tensor, source: Source, checksums: Mapping[str, int]) -> bool:
    tensor = output.source
    if written.shape != tensor.shape or TORCH_NAMES.get(output.dtype) not in (None, f"{written.dtype}"[6:]):
        return False
    whole = isinstance(tensor, StoredTensor) and tensor.is_contiguous and tensor.nbytes == tensor.storage.size
    if isinstance(tensor, StoredTensor) and whole and not output.is_cast and tensor.storage.name in checksums:
        return _crc32(written) == checksums[tensor.storage.name]
    flat, at = written.reshape(-1), 0
    for block in blocks(source.tensor(tensor)):
        part, at = flat[at : at + len(block)], at + len(block)
        if not output.is_cast:
            same = torch.equal(part.view(torch.uint8), block.view(torch.uint8))
        else:
            expected = block.to(part.dtype)
            # The bits of a NaN may depend on the width of the processor's vectors.
            same = torch.equal(part, expected) or bool(((part == expected) | (part.isnan() & expected.isnan())).all())
        if not same:
            return False
    return True


def _crc32(tensor: torch.Tensor) -> int:
    checksum = 0
    for block in blocks(tensor):
        checksum = crc32(as_bytes(block), checksum)
    return checksum
