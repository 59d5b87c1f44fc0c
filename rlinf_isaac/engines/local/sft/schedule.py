"""The learning-rate schedule of the fine-tuning."""

from __future__ import annotations

import math

from rlinf_isaac.config.sft_schema import SftConfig


def learning_rate(config: SftConfig, step: int) -> float:
    """Learning rate at `step` (1-based): linear warm-up, cosine decay to ``final_lr_ratio * lr``, then constant.

    The cosine ends at ``decay_steps`` (which includes the warm-up, as in optax), or at the last step.

    OpenPI's schedule (optax's ``warmup_cosine_decay_schedule`` from ``lr / (warmup_steps + 1)``, which counts steps
    from 0) lags one step behind this one: its warm-up is ``lr * step / (warmup_steps + 1)``, smaller by a factor of
    1 / (warmup_steps + 1) (a thousandth for 1000 steps), and later it has the value of this schedule one step earlier.
    """
    if step <= config.warmup_steps:
        return config.lr * step / config.warmup_steps
    end = config.decay_steps or config.steps
    done = min(1.0, (step - config.warmup_steps) / max(1, end - config.warmup_steps))
    return config.lr * (config.final_lr_ratio + (1 - config.final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done)))
