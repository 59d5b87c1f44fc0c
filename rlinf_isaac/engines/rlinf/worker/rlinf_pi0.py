"""pi0 as an RLinf model: `rlinf_isaac.pi0.model.Pi0` with the methods that RLinf calls.

The model has the norm stats, the tokenizer and the transforms of its bundle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from rlinf.models.embodiment.base_policy import BasePolicy, ForwardType

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.foreign.load_base import load_base
from rlinf_isaac.checkpoint.trained_with import NormStatsFile
from rlinf_isaac.config import build_config
from rlinf_isaac.config.schema import JobConfig, ModelConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.exploration import act_exploring, evaluated_again, exploration_draws
from rlinf_isaac.engines.local.sft.batches import TrainingBatch
from rlinf_isaac.engines.local.sft.update import flow_loss
from rlinf_isaac.engines.policies import load_with_heads, make_processor
from rlinf_isaac.pi0.compiled import checkpoint_activations
from rlinf_isaac.pi0.flow_policy import FlowActorCritic, Transitions
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.policy import Pi0Policy, Processor, episode_noise

VIEWS = {"base_0_rgb": "main_images", "left_wrist_0_rgb": "wrist_images"}
"""The model's camera -> RLinf's name of its images."""
STREAM = 5
"""Part of the seed; makes the exploration noise independent of random numbers for other purposes."""


def build_policy(cfg: Any, torch_dtype: Any) -> RlinfPi0:
    """RLinf's model builder: load the bundle at ``cfg.model_path`` strictly, or the base at ``cfg.base``, or initialise
    random weights."""
    job = build_config(OmegaConf.to_container(cfg.job, resolve=True), "the job")
    policy = RlinfPi0(job, explore=cfg.add_value_head)
    checkpoint_activations(policy, job.sft.activation_checkpointing)
    if cfg.model_path is None:
        initialise(policy, job.sft.seed)
        if cfg.get("base") is not None:
            load_base(Path(cfg.base), policy, job.model, job.sft.fresh)
    else:
        policy.load_bundle(Path(cfg.model_path))
    return policy


class TiedModelConfig(ModelConfig):
    """Tells RLinf's FSDP that the embedding is tied to the head and must not become a separate FSDP unit."""

    tie_word_embeddings = True


class RlinfPi0(Pi0, BasePolicy):
    """pi0 with its pre- and post-processing. The parameters have the names of OpenPI's state dict.

    Args:
        job: config of the job.
        explore: whether to add the heads that reinforcement learning needs; the VLM is frozen then.
    """

    def __init__(self, job: JobConfig, *, explore: bool = False) -> None:
        super().__init__(TiedModelConfig(**vars(job.model)))
        self.job = job
        self.processor: Processor | None = None
        self.mode = "eval"
        if explore:
            flow = FlowActorCritic(self, job.policy, job.rl)
            for name, head in flow.heads.items():
                self.add_module(name, head)
            # Not registered as a submodule, because it contains this module.
            object.__setattr__(self, "_flow", flow)

    @property
    def flow(self) -> FlowActorCritic:
        """The stochastic policy with these parameters; only if created with `explore`."""
        flow = self.__dict__["_flow"]
        for name, buffer in flow.named_buffers(recurse=False):
            setattr(flow, name, buffer.to(self._device))
        return flow

    def load_bundle(self, path: Path, norm_stats: Path | None = None) -> None:
        """Load the weights of a bundle in place, and its norm stats unless others are given.

        Heads that the bundle lacks, or has in another shape, are not changed.

        Raises:
            BundleError, WeightsError: the bundle is damaged, or does not fill the model completely.
        """
        bundle = read_bundle(path)
        load_with_heads(bundle, self)
        data, origin = bundle.norm_stats_bytes, path
        if norm_stats is not None:
            data, origin = NormStatsFile.read(norm_stats).data, norm_stats
        self.processor = make_processor(self.job, from_json(data, str(origin)))

    def forward(  # type: ignore[override]
        self, forward_type: ForwardType = ForwardType.DEFAULT, **kwargs: Any
    ) -> Any:
        """RLinf's forward pass of the given type; its arguments differ from those of `Pi0.forward`."""
        if forward_type is ForwardType.DEFAULT:
            return self.default_forward(**kwargs)
        if forward_type is ForwardType.SFT:
            return self.sft_forward(**kwargs)
        raise NotImplementedError(f"pi0 has no {forward_type}")

    def sft_forward(self, data: TrainingBatch, **kwargs: Any) -> torch.Tensor:
        """The flow-matching loss of a batch, a scalar."""
        return flow_loss(super().forward(*data.on(self._device)), self.job)

    def default_forward(self, forward_inputs: dict[str, torch.Tensor], **kwargs: Any) -> dict[str, torch.Tensor]:
        """Log-probabilities (B, 7), whose sum is that of the chunk, and values (B, 1); `forward_inputs` come from
        `predict_action_batch`."""
        assert self.processor is not None
        prompts = [task_of(self.job).prompt(0)] * len(forward_inputs["state"])
        images = {view: forward_inputs[view].cpu().numpy() for view in VIEWS}
        states = forward_inputs["state"].cpu().numpy()
        transitions = Transitions(*(forward_inputs[name] for name in Transitions._fields))
        scored = evaluated_again(self.flow, self.processor, images, states, prompts, transitions)
        return {
            "logprobs": self._spread(scored.log_prob),
            "values": scored.value[:, None],
            "entropy": scored.entropy[:, None],
        }

    def predict_action_batch(
        self, env_obs: dict[str, Any], **kwargs: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | dict[str, torch.Tensor]]]:
        """Action chunks (N, chunk, 7) for RLinf's observations (`rlinf_stack_cube.RlinfStackCube`).

        In the mode ``train`` the actions have exploration noise, and the inputs of PPO's update are returned as well.
        """
        assert self.processor is not None
        keys = env_obs["extra_view_images"][:, 0].tolist()
        images = {view: env_obs[key].numpy() for view, key in VIEWS.items()}
        states, prompts = env_obs["states"].numpy(), env_obs["task_descriptions"]
        if self.mode == "train":
            return self._explore(images, states, prompts, keys)
        if all(seed < 0 for seed, _ in keys):  # every episode has ended, but RLinf continues to the end of its epoch
            return torch.zeros(len(keys), self.job.policy.action_chunk, self.job.policy.env_action_dim), {}
        policy = Pi0Policy(self, self.processor, self.job.policy, self._device)
        seed = self.job.eval.policy_seed
        known = [(episode, call) if episode >= 0 else (0, 0) for episode, call in keys]
        noise = [episode_noise(seed, episode, call, policy.noise_shape) for episode, call in known]
        return torch.from_numpy(policy.act(images, states, prompts, np.stack(noise))), {}

    def _explore(
        self, images: dict[str, np.ndarray], states: np.ndarray, prompts: list[str], keys: list[list[int]]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        assert self.processor is not None
        flow = self.flow
        # A slot without an episode: any randomness will do.
        known = [(episode, call) if episode >= 0 else (0, 0) for episode, call in keys]
        draws = exploration_draws(flow, [(STREAM, *key) for key in known])
        chunk, transitions, scored = act_exploring(flow, self.processor, images, states, prompts, draws)
        seen = {view: torch.from_numpy(image) for view, image in images.items()} | {"state": torch.from_numpy(states)}
        return torch.from_numpy(chunk), {
            "prev_logprobs": self._spread(scored.log_prob),
            "prev_values": scored.value[:, None],
            "forward_inputs": seen | transitions._asdict(),
        }

    def _spread(self, log_prob: torch.Tensor) -> torch.Tensor:
        """Pad (B,) with zeros to (B, 7), because RLinf sums over the action dims. The sum is bitwise the same."""
        return torch.nn.functional.pad(log_prob[:, None], (0, self.job.policy.env_action_dim - 1))

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device
