from __future__ import annotations

import pytest
import torch
from corpus.foreign import dummy_model

from rlinf_isaac.pi0.model import Pi0


@pytest.fixture(scope="module")
def model(config) -> Pi0:
    """A model of the module's `config` in which no parameter is zero: norms and gates start so."""
    model = dummy_model(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.01)
    return model
