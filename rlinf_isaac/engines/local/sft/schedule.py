"""The learning rate of a training step."""

from __future__ import annotations

import math

from rlinf_isaac.config.sft_schema import SftConfig


def learning_rate(config: SftConfig, step: int) -> float:
    """Learning rate of 1-based `step`: linear warm-up, then cosine down to ``final_lr_ratio * lr``, where it stays.

    The cosine ends at ``decay_steps``, warm-up counted in as in optax, or at the last step.

    OpenPI's schedule (optax's ``warmup_cosine_decay_schedule`` from ``lr / (warmup_steps + 1)``, which counts steps
    from 0) is this one a step later: in the warm-up it is ``lr * step / (warmup_steps + 1)``, less by a
    1 / (warmup_steps + 1) of it, a thousandth with 1000 steps, and from then on it has the value of the step before.
    """
    if step <= config.warmup_steps:
        return config.lr * step / config.warmup_steps
    end = config.decay_steps or config.steps
    done = min(1.0, (step - config.warmup_steps) / max(1, end - config.warmup_steps))
    return config.lr * (config.final_lr_ratio + (1 - config.final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done)))
