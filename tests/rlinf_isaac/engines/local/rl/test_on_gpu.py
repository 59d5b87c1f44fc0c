"""What only a GPU does: exploring by captured graphs, kernels that differ between rollout and update, streams."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.rl.prefixes import PrefixStore
from rlinf_isaac.ground.events import CheckpointSaved, Metrics
from rlinf_isaac.pi0.kept_prefix import KeptPrefix

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
BF16 = "compute.dtype=bfloat16"


@pytest.mark.parametrize("overrides", [[], [BF16], [BF16, "rl.exploration=flow_noise"], [BF16, "rl.trainable=lora"]])
def test_ratios_begin_at_one_and_the_sampler_is_close(make_job, overrides):
    events = list(LocalEngine().rl(make_job("compute.device=cuda", *overrides)))
    iterations = [event.values for event in events if isinstance(event, Metrics) and event.step]
    assert len(iterations) == 3
    for values in iterations:
        assert values["train/first_ratio_error"] < 1e-3
        assert 0 <= values["rollout/log_ratio_median"] <= values["rollout/log_ratio_p99"] <= 5
        assert values["gpu/peak_memory_gib"] > 0
        assert math.isfinite(values["train/grad_norm"])
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [1, 2, 3]


@pytest.mark.parametrize("place", ["gpu", "host", "none"])
def test_wherever_prefixes_lie_the_update_is_the_same_up_to_rounding(make_job, place):
    job = make_job("compute.device=cuda", BF16, f"rl.prefix_memory={place}", "rl.micro_batch=2", "rl.iterations=1")
    expected = make_job("compute.device=cuda", BF16, "rl.prefix_memory=none", "rl.iterations=1", output="expected")
    values, wanted = (
        next(event.values for event in LocalEngine().rl(each) if isinstance(event, Metrics) and event.step)
        for each in (job, expected)
    )
    for name in ("rollout/value", "train/critic_loss", "rollout/success_once"):
        assert values[name] == pytest.approx(wanted[name], rel=0.05, abs=1e-3)


def test_rows_that_are_fetched_while_others_are_used():
    """Long kernels between the reads, so that a copy that does not wait for them would be seen."""
    generator = torch.Generator("cuda").manual_seed(0)
    keys, values = (torch.randn(4, 32, 1, 64, 64, device="cuda", generator=generator) for _ in range(2))
    whole = KeptPrefix(keys, values, torch.ones(32, 64, dtype=torch.bool, device="cuda"), None)
    near = torch.empty(8, 4, 2, 1, 64, 64, device="cuda")
    store = PrefixStore(near, torch.zeros(32, 64, dtype=torch.bool, device="cuda"), None)
    store.write(0, whole, None, padded=False)
    chooser, busy = np.random.default_rng(0), torch.randn(4096, 4096, device="cuda")
    pieces = [chooser.choice(32, 8, replace=False) for _ in range(20)]
    sums = []
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        found = store.read(piece, following)
        for _ in range(5):
            busy = (busy @ busy).clamp(-1, 1)
        sums.append(found.keys.double().sum() + found.values.double().sum())
    expected = [keys[:, piece].double().sum() + values[:, piece].double().sum() for piece in pieces]
    torch.testing.assert_close(torch.stack(sums), torch.stack(expected))
