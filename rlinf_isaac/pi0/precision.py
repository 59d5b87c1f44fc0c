"""Number formats of the parameters: float32, or bfloat16 as OpenPI mixes it."""

from __future__ import annotations

import torch

from rlinf_isaac.pi0.model import Pi0

KEPT_IN_FLOAT32 = (
    "vision_tower.vision_model.embeddings.",
    "input_layernorm",
    "post_attention_layernorm",
    "model.norm",
)
"""Parts of the transformers' parameter names that OpenPI does not cast: patches, positions, Gemma's norms, those of
pi0.5 with the layers that make their scales. Source: ``to_bfloat16_for_selected_params`` in OpenPI's
``gemma_pytorch.py``. Its ``model.norm`` also finds ``language_model.norm``."""


def to_precision(model: Pi0, dtype: str) -> Pi0:
    """Casts the parameters in place, to ``float32`` or ``bfloat16``.

    bfloat16 is OpenPI's: the transformers except for `KEPT_IN_FLOAT32`. The projections of state, actions and time
    around the expert are float32 in either case. Tied parameters stay tied.
    """
    cast = set()
    if dtype == "bfloat16":
        transformers = model.paligemma_with_expert.named_parameters()
        cast = {parameter for name, parameter in transformers if not any(part in name for part in KEPT_IN_FLOAT32)}
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16 if parameter in cast else torch.float32)
    return model
