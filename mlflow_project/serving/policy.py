"""Answers requests with the policy of a verified bundle, with the same results as in the evaluation.

The actions are bitwise the same for the same observation and noise, independent of the other requests in the batch. Two
effects would break this, and both are avoided:

- torch selects kernels by the shape of the batch, and another kernel rounds differently. So only those batch sizes are
  used whose rows, measured when the policy is loaded, equal those of the evaluation's batch (`exact_sizes`). The
  evaluation's batch has ``eval.num_envs`` rows (from the checkpoint's config). A smaller batch is filled with copies.
- Prompts are padded to the longest one in the batch. So all requests in a batch have the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from mlflow_project.serving.observation import NoiseKey, ObservationSpec, Request
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.facts import assumed, recorded, spell
from rlinf_isaac.checkpoint.trained_with import serving_mismatches
from rlinf_isaac.config import build_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.policies import load_policy
from rlinf_isaac.ground.errors import InvalidJob, ObservationError
from rlinf_isaac.pi0.policy import Pi0Policy, episode_noise

Exact = Literal["auto", "true", "false"]


class ServedPolicy:
    """Answers requests with action chunks.

    Args:
        bundle: a verified bundle.
        config: the checkpoint's job, with this machine's device.
        max_batch: most requests in one call of the model.
        exact: whether actions must be bitwise those of the evaluation. ``auto`` means only on the CPU: on a GPU usually
            only a batch of the evaluation's size rounds like it, which would slow down every request.
        any_prompt: accept prompts that the training did not have.

    Raises:
        ValueError: the bundle was not verified.
        InvalidJob: the weights do not fill the model, the tokenizer differs from that of the training, a fact about the
            training is not known, or the device cannot be exact.
    """

    def __init__(
        self, bundle: Bundle, config: JobConfig, *, max_batch: int = 8, exact: Exact = "auto", any_prompt: bool = False
    ) -> None:
        if not bundle.verified:
            raise ValueError(f"{bundle.path} was read without hashing its weights")
        if problems := serving_mismatches(bundle, config):
            raise InvalidJob(problems)
        if config.compute.threads:  # process-wide, as in the evaluation: the number of threads changes rounding
            torch.set_num_threads(config.compute.threads)
        self.bundle, self.config, self.max_batch = bundle, config, max_batch
        self.policy = load_policy(bundle, config)
        self.spec = observation_spec(bundle, config, any_prompt=any_prompt)
        self.exact = config.compute.device == "cpu" if exact == "auto" else exact == "true"
        self.sizes = _powers_up_to(max_batch)
        if self.exact:
            reference = min(config.eval.num_envs, config.eval.episodes)
            largest = max(max_batch, reference)
            self.sizes = exact_sizes(self.policy, self.spec, _powers_up_to(largest), reference)
        if self.policy.compiled:  # compile now, so that the first request is as fast as the others
            for size in self.sizes:
                act(self.policy, [_probe(self.policy, self.spec, (0, 0, 0))], size)

    def infer(self, requests: Sequence[Request]) -> np.ndarray:
        """Action chunks (N, chunk, action dims) float32 in robot units, in the order of the requests.

        Raises:
            ObservationError: the actions for one of the requests are not finite.
            TokenizerError: one of the prompts is too long.
        """
        actions = np.empty(
            (len(requests), self.config.policy.action_chunk, self.config.policy.env_action_dim), np.float32
        )
        by_prompt: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            by_prompt.setdefault(request.prompt, []).append(index)
        largest = min(self.max_batch, max(self.sizes))
        for indices in by_prompt.values():
            for start in range(0, len(indices), largest):
                rows = indices[start : start + largest]
                size = next(size for size in self.sizes if size >= len(rows))
                actions[rows] = act(self.policy, [requests[row] for row in rows], size)
        if not np.isfinite(actions).all():
            cause = "the policy's actions for this observation are not finite"
            raise ObservationError.of("actions-not-finite", cause, "look at the state: is it in robot units?")
        return actions

    def metadata(self) -> dict[str, Any]:
        """Metadata for clients: the checkpoint, the observations it needs, and the actions it returns."""
        policy = self.config.policy
        return {
            "checkpoint": self.bundle.digest,
            "step": self.bundle.step,
            "preset": self.config.preset,
            "image_size": self.spec.image_size,
            **announced(self.bundle),
            **self._of_task(),
            "state_names": list(self.spec.state_names),
            "action_horizon": policy.action_chunk,
            "batch_sizes": list(self.sizes),
            "exact": self.exact,
            "warmup_seconds": round(self.policy.warmup_seconds, 1),
        }

    def _of_task(self) -> dict[str, Any]:
        task = task_of(self.config)
        return {
            "task": task.name,
            "task_digest": task.digest,
            "cameras": {slot: list(self.spec.spellings[slot]) for slot in self.spec.cameras},
        }


def announced(bundle: Bundle) -> dict[str, Any]:
    """Facts about the training for clients, recorded or assumed; None for a fact that is neither."""
    return {
        "prompts": list((bundle.config.get("prompts") or {}).values()),
        "control_hz": recorded(bundle, "control_hz", "control_hz"),
        "state_names": recorded(bundle, "state", "state_names"),
        "action_names": recorded(bundle, "actions", "action_names"),
        "images": recorded(bundle, "images", "images"),
        "assumed": {fact: spell(value) for fact, value in assumed(bundle).items()},
    }


def serving_config(bundle: Bundle, device: str = "cpu") -> JobConfig:
    """The config of the bundle's job, with `device`.

    Raises:
        InvalidJob: the bundle has no job, or this release does not understand it.
    """
    return build_config(bundle.job, f"{bundle.path}/config.json", [f"compute.device={device}"])


def observation_spec(bundle: Bundle, config: JobConfig, *, any_prompt: bool = False) -> ObservationSpec:
    """The observations that the policy of a bundle accepts: those of its task. State dims without a recorded or assumed
    name are named by their number."""
    task = task_of(config)
    labels: Sequence[str] = task.state.labels
    if not config.task:
        dims = len(from_json(bundle.norm_stats_bytes, str(bundle.path)).state.mean)
        labels = [str(index) for index in range(dims)]
    names = recorded(bundle, "state", "state_names") or labels
    prompts = tuple((bundle.config.get("prompts") or {}).values()) or task.prompts or ()
    cameras = {slot: camera.dataset for slot, camera in task.cameras.items()}
    size = config.model.vision.image_size
    return ObservationSpec(size, tuple(names), prompts, cameras, task.state.dataset, any_prompt)


def act(policy: Pi0Policy, requests: Sequence[Request], size: int) -> np.ndarray:
    """Action chunks of requests with the same prompt, from a batch of `size` rows, filled with copies of the last
    request."""
    rows = [*requests, *[requests[-1]] * (size - len(requests))]
    actions = policy.act(
        {slot: np.stack([row.images[slot] for row in rows]) for slot in rows[0].images},
        np.stack([row.state for row in rows]),
        [row.prompt for row in rows],
        np.stack([episode_noise(*row.noise_key, policy.noise_shape) for row in rows]),
    )
    return actions[: len(requests)]


def exact_sizes(policy: Pi0Policy, spec: ObservationSpec, candidates: Sequence[int], reference: int) -> tuple[int, ...]:
    """`reference` and the candidate batch sizes whose rows are bitwise equal to those of a batch of `reference` rows.

    They are measured with random observations, because the selected kernel depends on the shapes, not on the values.

    Raises:
        InvalidJob: the same batch gives different bits the second time.
    """
    probes = [_probe(policy, spec, (0, 0, row)) for row in range(reference)]
    expected = act(policy, probes, reference)
    sizes = sorted({*candidates, reference})
    exact = [size for size in sizes if np.array_equal(act(policy, probes[:size], size), expected[:size])]
    if reference not in exact:
        cause = f"on {policy.device} the same observations and noise do not give the same actions twice"
        raise InvalidJob.of("not-reproducible", cause, "serve with --exact false, or on the CPU")
    return tuple(exact)


def _powers_up_to(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `most`."""
    return (*(2**k for k in range(most.bit_length()) if 2**k < most), most)


def _probe(policy: Pi0Policy, spec: ObservationSpec, key: NoiseKey) -> Request:
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    shape = (spec.image_size, spec.image_size, 3)
    images = {slot: random.integers(0, 256, shape, dtype=np.uint8) for slot in spec.cameras}
    state = policy.processor.state_normalizer.unnormalize(random.standard_normal(len(spec.state_names)))
    return Request(images, state, spec.prompts[0] if spec.prompts else "", key)
