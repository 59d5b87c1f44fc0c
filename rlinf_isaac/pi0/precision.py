"""Number formats of the parameters: float32, or OpenPI's mixture of bfloat16 and float32."""

from __future__ import annotations

import torch

from rlinf_isaac.pi0.layout import KEPT_IN_FLOAT32
from rlinf_isaac.pi0.model import Pi0


def to_precision(model: Pi0, dtype: str) -> Pi0:
    """Casts the parameters in place, to ``float32`` or ``bfloat16``.

    With ``bfloat16``, as in OpenPI, the parameters of the transformers except for `KEPT_IN_FLOAT32` become bfloat16.
    The projections of state, actions and time around the expert are float32 in either case. Tied parameters stay tied.
    """
    in_bfloat16 = set()
    if dtype == "bfloat16":
        transformers = model.paligemma_with_expert.named_parameters()
        in_bfloat16 = {weight for name, weight in transformers if not any(part in name for part in KEPT_IN_FLOAT32)}
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16 if parameter in in_bfloat16 else torch.float32)
    return model
