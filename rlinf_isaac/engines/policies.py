"""Loads the policy of a checkpoint bundle for a job config."""

from __future__ import annotations

import torch
from torch import nn

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.header import read_keys
from rlinf_isaac.checkpoint.trained_with import NormStatsFile
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.config.schema import ComputeConfig, JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.norm_stats import NormStats, from_json
from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.policy import Pi0Policy, Processor
from rlinf_isaac.pi0.precision import to_precision
from rlinf_isaac.pi0.tokenizer import load_tokenizer
from rlinf_isaac.tasks.adapters import find_adapter


def make_processor(config: JobConfig, norm_stats: NormStats) -> Processor:
    """The pre- and post-processing of observations and actions for `config` with these norm stats."""
    adapter = find_adapter(task_of(config).adapt)
    return Processor(config.model, config.policy, norm_stats, load_tokenizer(config.policy, config.model), adapter)


class LastModel:
    """The model of the checkpoint that was loaded last: the tasks of a suite differ in all but the weights."""

    def __init__(self) -> None:
        self._loaded: tuple[str, Pi0] | None = None

    def of(self, bundle: Bundle, config: JobConfig) -> Pi0:
        """The model of a bundle; it is loaded unless the last one was of the same bundle. Raises as `load_policy`."""
        if self._loaded is None or self._loaded[0] != bundle.digest:
            self._loaded = None  # before: two full-size models may not fit
            self._loaded = bundle.digest, load_model(bundle, config)
        return self._loaded[1]


def load_model(bundle: Bundle, config: JobConfig) -> Pi0:
    """The model of a verified bundle. Raises as `load_policy`."""
    model = empty_model(config)
    load_weights(bundle, model, optional=OPTIONAL_PREFIXES)
    return model


def load_policy(
    bundle: Bundle, config: JobConfig, norm_stats: NormStatsFile | None = None, last: LastModel | None = None
) -> Pi0Policy:
    """The policy of a verified bundle, with the bundle's norm stats unless others are given.

    The caller checks with `mismatches` whether `config` and `norm_stats` are those of the training.

    Args:
        bundle: the checkpoint.
        config: of the job.
        norm_stats: in place of the bundle's.
        last: the model that was loaded last, which is used again if it is of the same checkpoint.

    Raises:
        WeightsError: names or shapes of the weights differ from the architecture's.
    """
    stats = bundle.norm_stats_bytes if norm_stats is None else norm_stats.data
    processor = make_processor(config, from_json(stats, str(norm_stats.path if norm_stats else bundle.path)))
    model = load_model(bundle, config) if last is None else last.of(bundle, config)
    return Pi0Policy(model, processor, config.policy, config.compute.device, compile=compiles(config.compute))


def load_with_heads(bundle: Bundle, module: nn.Module) -> None:
    """Load a bundle's weights in place into a model and the heads beside it, with a checkpoint's names.

    Heads that the bundle lacks, or has in another shape (of another exploration, say), stay as they are.

    Raises:
        BundleError, WeightsError: the bundle is damaged, or does not fill the model completely.
    """
    stored, filled = read_keys(bundle.path), nn.Module()
    complete = all(
        name in stored and stored[name].shape == tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if name.startswith(OPTIONAL_PREFIXES)
    )
    for name, child in module.named_children():
        if complete or not f"{name}.".startswith(OPTIONAL_PREFIXES):
            filled.add_module(name, child)
    load_weights(bundle, filled, optional=OPTIONAL_PREFIXES)


def compiles(compute: ComputeConfig) -> bool:
    """Whether inference is compiled: the config asks for it, and the device is a GPU."""
    return compute.device.startswith("cuda") and compute.compile


def empty_model(config: JobConfig) -> Pi0:
    """The model of `config` on its device and in its dtype, with uninitialised memory; the caller loads the weights."""
    with torch.device("meta"):
        model = Pi0(config.model)
    # Set the dtype before allocating, so that a full-size model never occupies memory in float32.
    to_precision(model, config.compute.dtype).to_empty(device=config.compute.device)
    paligemma = model.paligemma_with_expert.paligemma
    paligemma.lm_head.weight = (
        paligemma.model.language_model.embed_tokens.weight
    )  # `to_empty` has separated tied weights
    return model
