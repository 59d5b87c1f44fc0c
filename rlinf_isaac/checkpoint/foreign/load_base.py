"""The weights of a base into a model. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rlinf_isaac.checkpoint.convert.source import Source
from rlinf_isaac.checkpoint.foreign.base import plan_base
from rlinf_isaac.checkpoint.foreign.find_norm_stats import all_norm_stats
from rlinf_isaac.checkpoint.foreign.make import check_twins
from rlinf_isaac.checkpoint.foreign.sources import find_located
from rlinf_isaac.checkpoint.weights import check_finite
from rlinf_isaac.config.schema import ModelConfig


@torch.no_grad()
def load_base(path: Path, model: torch.nn.Module, architecture: ModelConfig, fresh: Sequence[str] = ()) -> None:
    """Copy the weights of the base at `path` into `model` in place; its dtype and device stay.

    A model in float32 gets the numbers of the file as they are, whatever format of 32 bits or less they have there, so
    that float32 copies of what is trained (`MasterAdamW`) begin with all bits of a float32 base. Memory holds the
    model and one tensor.

    Args:
        path: of the base (`base.Named`).
        model: with the names of OpenPI's state dict.
        architecture: of the model.
        fresh: patterns of parameters that keep the values they have (`SftConfig.fresh`).

    Raises:
        BundleError, WeightsError: the base is not whole, does not fit, or holds NaN or infinity.
    """
    located = find_located(path, all_norm_stats)
    conversion = plan_base(located, architecture, fresh)
    check_twins(conversion)
    targets = model.state_dict(keep_vars=True)
    filled: set[int] = set()
    with Source(conversion.stored, [output.source for output in conversion.outputs]) as source:
        for output in conversion.outputs:
            target = targets[output.name]
            if id(target) in filled:  # tied
                continue
            filled.add(id(target))
            tensor = source.tensor(output.source)
            check_finite(output.name, tensor)
            target.copy_(tensor)
        source.raise_if_changed()
