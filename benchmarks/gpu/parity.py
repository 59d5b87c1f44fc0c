"""The full-size model against rlinf-openpi's, with the same random weights, inputs and noise.

The reference is rlinf-openpi's model in float32 (no TF32). In float32 ours must agree with it up to the order of sums.
In bfloat16 neither is exact: ours, plain and fast, must not be further from the reference than rlinf-openpi's own
bfloat16 is, with a tenth of tolerance. Prompts are padded to different lengths, one camera is masked.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from measure import HORIZON, STEPS, flow, full_model, observation
from stages import Row
from torch import Tensor

from rlinf_isaac.pi0.fast.sampler import GraphSampler
from rlinf_isaac.pi0.precision import to_precision

FLOAT32_TOLERANCE, BFLOAT16_TOLERANCE = 1e-4, 1.1


def rows(preset: str) -> Iterator[Row]:
    """Relative errors |x - reference| / |reference| of losses, element by element, and of samples."""
    import upstream

    inputs, (actions, noise, time) = observation(4, padded=True), flow(4)
    model = full_model(preset, "float32")
    other = upstream.load(preset == "pi05", "float32", HORIZON)
    other.load_state_dict(model.state_dict(), strict=True)
    other.gradient_checkpointing_enable()  # its plain training path asks for an attribute that only this sets
    preprocess = other._preprocess_observation
    other._preprocess_observation = lambda batch, train: preprocess(batch, train=False)  # no random augmentation

    def their_loss() -> Tensor:
        return other.train()(upstream.as_upstream(inputs), actions, noise, time)

    def their_sample() -> Tensor:
        return other.eval().sample_actions("cuda", upstream.as_upstream(inputs), noise=noise, num_steps=STEPS)

    with torch.no_grad():
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        loss, sample = their_loss(), their_sample()
        found = _error(model(inputs, actions, noise, time), loss), _error(model.sample(inputs, noise, STEPS), sample)
        for what, error in zip(("loss", "samples"), found, strict=True):
            yield _judged(f"{preset} {what}, float32, ours plain", error, FLOAT32_TOLERANCE)

        torch.set_float32_matmul_precision("high")  # what its constructor sets
        torch.backends.cudnn.allow_tf32 = True
        other.paligemma_with_expert.to_bfloat16_for_selected_params("bfloat16")
        theirs = _error(their_loss(), loss), _error(their_sample(), sample)
        to_precision(model, "bfloat16")
        torch.set_float32_matmul_precision("highest")
        plain = _error(model(inputs, actions, noise, time), loss), _error(model.sample(inputs, noise, STEPS), sample)
        fast = _error(GraphSampler(model, STEPS)(inputs, noise), sample)
        yield Row(f"{preset} loss, bfloat16, rlinf-openpi", theirs[0], "error")
        yield _judged(f"{preset} loss, bfloat16, ours plain", plain[0], BFLOAT16_TOLERANCE * theirs[0])
        yield Row(f"{preset} samples, bfloat16, rlinf-openpi", theirs[1], "error")
        yield _judged(f"{preset} samples, bfloat16, ours plain", plain[1], BFLOAT16_TOLERANCE * theirs[1])
        yield _judged(f"{preset} samples, bfloat16, ours fast", fast, BFLOAT16_TOLERANCE * theirs[1])


def _error(value: Tensor, reference: Tensor) -> float:
    value, reference = value.double(), reference.double()
    return float((value - reference).norm() / reference.norm())


def _judged(what: str, error: float, tolerance: float) -> Row:
    return Row(what, error, "error", f"{'ok' if error <= tolerance else 'TOO LARGE'}: tolerance {tolerance:.1e}")
