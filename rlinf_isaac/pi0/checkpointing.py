"""Activation checkpointing of one layer (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def run_layer(layer: Callable[..., Any], *inputs: Any, checkpointing: bool) -> Any:
    """Calls `layer` on `inputs`. With `checkpointing` and gradients on, only the inputs are kept for the backward pass,
    which computes the activations again.

    The layers use no random numbers, so the state of the random generators is not saved.
    """
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
    return layer(*inputs)
