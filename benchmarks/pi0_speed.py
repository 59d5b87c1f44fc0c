"""Milliseconds of a pi0 training step and of an action chunk, by preset.

    python benchmarks/pi0_speed.py --preset tiny --threads 1
    python benchmarks/pi0_speed.py --preset pi0 --device cuda --dtype bfloat16 --train-batch 0

Best and median of CPU time on a CPU (a busy machine cannot inflate it), of wall time on a GPU. Weights and inputs are
random; the prompt is 46 bytes long. A training step is forward, backward, gradient clipping and AdamW.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.norm_stats import FeatureStats, NormStats
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.policy import Pi0Policy, Processor, episode_noise
from rlinf_isaac.pi0.tokenizer import ByteTokenizer

PROMPT = "Stack the red block on top of the blue block."
STATE_DIM = 20


def unit_stats(dim: int) -> FeatureStats:
    zeros, ones = np.zeros(dim), np.ones(dim)
    return FeatureStats(mean=zeros, std=ones, q01=-ones, q99=ones)


def random_inputs(config: JobConfig, batch: int) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    size = config.model.vision.image_size
    images = {view: rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8) for view in ("front", "wrist")}
    return images, rng.normal(size=(batch, STATE_DIM)).astype(np.float32), [PROMPT] * batch


def training_step(policy: Pi0Policy, config: JobConfig, batch: int) -> Callable[[], None]:
    model, processor, device = policy.model, policy.processor, policy.device
    images, states, prompts = random_inputs(config, batch)
    observation = processor.observation(images, states, prompts).to(device)
    shape = (batch, config.model.action_horizon, config.policy.env_action_dim)
    actions = processor.target_actions(np.random.default_rng(1).normal(size=shape), states).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        noise, times = torch.randn_like(actions), torch.rand(batch, device=device)
        loss = model(observation, actions, noise, times)[..., : config.policy.env_action_dim].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def action_chunk(policy: Pi0Policy, config: JobConfig, batch: int) -> Callable[[], np.ndarray]:
    images, states, prompts = random_inputs(config, batch)
    noise = np.stack([episode_noise(0, row, 0, policy.noise_shape) for row in range(batch)])
    return lambda: policy.act(images, states, prompts, noise)


def milliseconds(function: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Sorted durations after two warm-up calls."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    durations = []
    for _ in range(repeats + 2):
        start = clock()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        durations.append(1000 * (clock() - start))
    return sorted(durations[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--train-batch", type=int, default=32, help="0 leaves the training step out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    config = load_config(arguments.preset)
    with torch.device(arguments.device):
        model = Pi0(config.model)
    initialise(model, seed=0)
    model.to(getattr(torch, arguments.dtype))
    stats = NormStats(state=unit_stats(STATE_DIM), actions=unit_stats(config.policy.env_action_dim))
    processor = Processor(config.model, config.policy, stats, ByteTokenizer())
    policy = Pi0Policy(model, processor, config.policy, arguments.device)

    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    compute = f"{arguments.device}, {arguments.dtype}, {arguments.threads} thread(s), torch {torch.__version__}"
    print(f"{arguments.preset}: {parameters:.2f} M parameters, {compute}")
    print(f"{'':28s} {'best ms':>9s} {'median ms':>9s}")
    rows: list[tuple[str, Callable[[], object]]] = []
    for batch in (1, 10):
        name = f"act, {batch} env(s), {config.policy.denoise_steps} steps"
        rows.append((name, action_chunk(policy, config, batch)))
    if arguments.train_batch:
        name = f"training step, batch {arguments.train_batch}"
        rows.append((name, training_step(policy, config, arguments.train_batch)))
    for name, function in rows:
        durations = milliseconds(function, arguments.repeats, policy.device)
        print(f"{name:28s} {durations[0]:9.1f} {durations[len(durations) // 2]:9.1f}")


if __name__ == "__main__":
    main()
