"""Activation checkpointing of one layer (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def run_layer(layer: Callable[..., Any], *inputs: Any, checkpointing: bool) -> Any:
    """`layer` of `inputs`; with `checkpointing` and gradients on, only the inputs are kept for the backward pass.

    Nothing in the layers is random, so no random state is kept either.
    """
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
    return layer(*inputs)
