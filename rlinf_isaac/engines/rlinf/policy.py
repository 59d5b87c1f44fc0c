"""pi0 as an RLinf model: `rlinf_isaac.pi0.model.Pi0`, whose weights are OpenPI's, with RLinf's methods.

The norm stats, the tokenizer and the transforms of the bundle go with the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from rlinf.models.embodiment.base_policy import BasePolicy, ForwardType

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.trained_with import NormStatsFile
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.config import build_config
from rlinf_isaac.config.schema import JobConfig, ModelConfig
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.local.sft import Batch
from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.policy import Pi0Policy, Processor, episode_noise
from rlinf_isaac.pi0.tokenizer import load_tokenizer


def build_policy(cfg: Any, torch_dtype: Any) -> RlinfPi0:
    """RLinf's model builder: the bundle at ``cfg.model_path``, strictly loaded; without one, new weights of its seed."""
    policy = RlinfPi0(build_config(OmegaConf.to_container(cfg.job, resolve=True), "the job"))
    if cfg.model_path is None:
        initialise(policy, policy.job.sft.seed)
    else:
        policy.load_bundle(Path(cfg.model_path))
    return policy


class TiedModelConfig(ModelConfig):
    """Tells RLinf's FSDP that the embedding is shared with the head, and must not become a unit of its own."""

    tie_word_embeddings = True


class RlinfPi0(Pi0, BasePolicy):
    """pi0 with its pre- and post-processing. Parameters have the names of OpenPI's state dict."""

    def __init__(self, job: JobConfig) -> None:
        super().__init__(TiedModelConfig(**vars(job.model)))
        self.job = job
        self.processor: Processor | None = None

    def load_bundle(self, path: Path, norm_stats: Path | None = None) -> None:
        """Take over the weights of a bundle in place, and its norm stats unless others are given.

        Raises:
            BundleError, WeightsError: the bundle is damaged, or does not fill the model completely.
        """
        bundle = read_bundle(path)
        load_weights(bundle, self, optional=OPTIONAL_PREFIXES)
        data, origin = bundle.norm_stats_bytes, path
        if norm_stats is not None:
            data, origin = NormStatsFile.read(norm_stats).data, norm_stats
        tokenizer = load_tokenizer(self.job.policy, self.job.model)
        self.processor = Processor(self.job.model, self.job.policy, from_json(data, str(origin)), tokenizer)

    def forward(self, forward_type: ForwardType = ForwardType.DEFAULT, **kwargs: Any) -> Any:
        """One of RLinf's forward passes."""
        if forward_type is ForwardType.DEFAULT:
            return self.default_forward(**kwargs)
        if forward_type is ForwardType.SFT:
            return self.sft_forward(**kwargs)
        raise NotImplementedError(f"pi0 has no {forward_type}")

    def sft_forward(self, data: Batch, **kwargs: Any) -> torch.Tensor:
        """The flow-matching loss of a batch, a scalar."""
        device = next(self.parameters()).device
        errors = super().forward(data.observation.to(device), *(tensor.to(device) for tensor in data[1:]))
        if self.job.sft.loss_on_real_dims:
            errors = errors[..., : self.job.policy.env_action_dim]
        return errors.mean()

    def default_forward(self, **kwargs: Any) -> Any:
        """Log-probabilities and values for PPO."""
        raise NotImplementedError

    def predict_action_batch(
        self, env_obs: dict[str, Any], mode: str = "eval", **kwargs: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Action chunks (N, chunk, 7) for RLinf's observations (`env.RlinfStackCube`)."""
        assert self.processor is not None
        keys = env_obs["extra_view_images"][:, 0].tolist()
        if all(seed < 0 for seed, _ in keys):  # every episode has ended; RLinf goes on to the end of its epoch
            shape = (len(keys), self.job.policy.action_chunk, self.job.policy.env_action_dim)
            return torch.zeros(shape), {}
        policy = Pi0Policy(self, self.processor, self.job.policy, next(self.parameters()).device)
        noise = np.stack(
            [
                episode_noise(self.job.eval.policy_seed, *((seed, call) if seed >= 0 else (0, 0)), policy.noise_shape)
                for seed, call in keys
            ]
        )
        images = {"front": env_obs["main_images"].numpy(), "wrist": env_obs["wrist_images"].numpy()}
        actions = policy.act(images, env_obs["states"].numpy(), env_obs["task_descriptions"], noise)
        return torch.from_numpy(actions), {}
