"""Is what was written what the source holds? Read again with the libraries' own loaders. Needs torch.

The converter reads neither with torch nor with safetensors, so that a fault of its own would show here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from rlinf_isaac.checkpoint.convert.plan import Output, Plan
from rlinf_isaac.checkpoint.convert.reference import open_reference
from rlinf_isaac.checkpoint.find_weights import Weights
from rlinf_isaac.checkpoint.header import weight_files
from rlinf_isaac.ground.errors import BundleError, ConversionFailed, WeightsError

_BLOCK = 1 << 24  # elements compared at once


def compare(weights: Weights, plan: Plan, directory: Path, advance: Callable[[int], None] = lambda count: None) -> None:
    """Compare every tensor of the files in `directory` with the source, bit by bit.

    Args:
        weights: the source.
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
        with open_reference(weights) as reference:
            for file in plan.files:
                with safe_open(directory / file.name, framework="pt") as written:
                    if set(written.keys()) != {tensor.name for tensor in file.tensors}:
                        raise ConversionFailed(f"{file.name} does not hold the tensors that were written")
                    for tensor in file.tensors:
                        _compare_one(tensor, _mapped(written, tensor), reference(tensor))
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
        raise ConversionFailed(f"{output.name} was written wrongly: it is not {output.stored} of the source")


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
