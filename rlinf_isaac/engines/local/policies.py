"""Between a job config, a checkpoint bundle and a policy that can act."""

from __future__ import annotations

import torch

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.trained_with import NormStatsFile
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.norm_stats import NormStats, from_json
from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.policy import Pi0Policy, Processor
from rlinf_isaac.pi0.tokenizer import load_tokenizer


def make_processor(config: JobConfig, norm_stats: NormStats) -> Processor:
    """The pre- and post-processing of `config` with these statistics."""
    return Processor(config.model, config.policy, norm_stats, load_tokenizer(config.policy, config.model))


def load_policy(bundle: Bundle, config: JobConfig, norm_stats: NormStatsFile | None = None) -> Pi0Policy:
    """The policy of a verified bundle: strict weights, and its own norm stats unless others are given.

    Whether `config` and `norm_stats` are what the weights were trained with is for `mismatches` to say, before.

    Raises:
        WeightsError: names or shapes differ from the architecture's.
    """
    stats = bundle.norm_stats_bytes if norm_stats is None else norm_stats.data
    processor = make_processor(config, from_json(stats, str(norm_stats.path if norm_stats else bundle.path)))
    device = torch.device(config.compute.device)
    model = Pi0(config.model)
    load_weights(bundle, model, optional=OPTIONAL_PREFIXES)
    return Pi0Policy(model.to(device).eval(), processor, config.policy, device)
