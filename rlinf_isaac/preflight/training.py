"""What a fine-tuning begins with: whether what is frozen has learnt anything."""

from __future__ import annotations

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.pi0.trainable import needs_base


def check_trainable(config: JobConfig, *, has_base: bool) -> list[Problem]:
    """Parts of the model that would stay at random values, because they are frozen and there is no base."""
    sft = config.sft
    if has_base or not needs_base(sft):
        return []
    frozen = f"sft.trainable={sft.trainable}" if sft.trainable != "all" else "sft.train_vision=false"
    cause = f"{frozen} freezes parts of the model, and without a base they are random"
    return [Problem("frozen-random", cause, "pass --base to sft, or set sft.trainable=all and sft.train_vision=true")]
