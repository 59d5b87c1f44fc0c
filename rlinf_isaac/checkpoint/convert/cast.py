"""Changing the dtype of a tensor as torch does, piece by piece. Needs torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch

from rlinf_isaac.checkpoint.convert.plan import Output
from rlinf_isaac.checkpoint.convert.source import Buffer
from rlinf_isaac.checkpoint.convert.tensors import TORCH_NAMES
from rlinf_isaac.ground.errors import WeightsError


def torch_dtype(name: str) -> torch.dtype:
    """torch's dtype for safetensors' name of it."""
    return cast(torch.dtype, getattr(torch, TORCH_NAMES[name]))


def cast_pieces(output: Output, pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    """The pieces of `output`'s source as they are in the output.

    Raises:
        WeightsError: a finite value becomes infinite.
    """
    before, after = torch_dtype(output.source.dtype), torch_dtype(output.dtype)
    for piece in pieces:
        values = torch.frombuffer(piece, dtype=before)
        result = values.to(after)
        if after.itemsize < before.itemsize and not torch.isfinite(result).all():
            lost = torch.isinf(result) & torch.isfinite(values)
            if lost.any():
                cause = f"{output.stored} has values up to {values[lost].abs().max().item():.3g}, too large for {after}"
                cure = f"choose another --dtype, or leave this one as it is: --keep-dtype {output.name}"
                raise WeightsError.of("cast-overflow", cause, cure)
        yield result.view(torch.uint8).numpy().data
