"""A full-size checkpoint of somebody else: pi0.5 as lerobot saves one, made a bundle, questioned, evaluated.

Its config.json says what lerobot says; its statistics are those of a normaliser with 32 dims. The parameter that
nobody reads (``gemma_expert.lm_head``) and the tied one are not stored, as in published files. The prompt tokenizer is
the one that needs no file, which the command line says.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from measure import full_model
from safetensors.torch import save_file
from stages import Row

from rlinf_isaac.checkpoint.bundle import read_bundle

CONFIG = {
    "type": "pi05",
    "chunk_size": 50,
    "n_action_steps": 10,
    "max_state_dim": 32,
    "max_action_dim": 32,
    "tokenizer_max_length": 200,
    "num_inference_steps": 10,
    "paligemma_variant": "gemma_2b",
    "action_expert_variant": "gemma_300m",
    "dtype": "bfloat16",
    "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "QUANTILES"},
    "use_relative_actions": False,
}
NORMALISER = "policy_preprocessor_step_2_normalizer_processor.safetensors"
NOT_STORED = ("gemma_expert.lm_head.weight", "language_model.embed_tokens.weight")
SHORT = "env.max_episode_steps=20,eval.num_envs=2,policy.tokenizer=byte"


def rows() -> Iterator[Row]:
    """Seconds of each command, and the largest memory of one of their processes."""
    with tempfile.TemporaryDirectory() as directory:
        policy = Path(directory) / "train" / "checkpoints" / "030000" / "pretrained_model"
        size = _save(policy)
        made, spent = _command(directory, "bundle", "make", policy, "--overrides", "policy.tokenizer=byte")
        (bundle,) = Path(directory).glob("result/isaaclab_openpi/bundles/*/30000")
        stored = read_bundle(bundle, verify=False).manifest.parameters
        print(made, file=sys.stderr)
        speed = f"{size / spent / 1e9:.2f} GB/s, {size / 1e9:.1f} GB, {stored / 1e9:.3f} B parameters"
        yield Row("foreign, bundle make of lerobot's pi0.5", spent, "s", speed)
        yield Row("foreign, largest memory of it", _peak_gib(), "GiB", "resident, the mapped file counted")
        evaluate = ("eval", "--ckpt-root", bundle.parent, "--episodes", "2", "--videos", "0", "--overrides", SHORT)
        asked, spent = _command(directory, *evaluate, expected=2)
        yield Row("foreign, eval asks what nobody knows", spent, "s", "exit code 2, weights hashed first")
        print(asked, file=sys.stderr)
        played, spent = _command(directory, *evaluate, "--assume", "all")
        yield Row("foreign, eval with what is assumed", spent, "s", "2 episodes of 20 steps, start-up included")
        print(played, file=sys.stderr)


def _save(policy: Path) -> int:
    """Write the policy's directory; returns the bytes of its weights."""
    policy.mkdir(parents=True)
    state = {
        f"model.{name}": tensor.contiguous().cpu()
        for name, tensor in full_model("pi05").state_dict().items()
        if not name.endswith(NOT_STORED)
    }
    save_file(state, policy / "model.safetensors")
    (policy / "config.json").write_text(json.dumps(CONFIG))
    stats = {}
    for feature in ("observation.state", "action"):
        for name, value in (("mean", 0.0), ("std", 1.0), ("q01", -1.0), ("q99", 1.0)):
            stats[f"{feature}.{name}"] = torch.full((32,), value)
    save_file(stats, policy / NORMALISER)
    step = {"registry_name": "normalizer_processor", "config": {"eps": 1e-8}, "state_file": NORMALISER}
    (policy / "policy_preprocessor.json").write_text(json.dumps({"name": "policy_preprocessor", "steps": [step]}))
    return (policy / "model.safetensors").stat().st_size


def _command(directory: str, *words: object, expected: int = 0) -> tuple[str, float]:
    """What a verb printed, and the seconds it took."""
    command = [sys.executable, "-m", "mlflow_project.cli", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    start = time.perf_counter()
    result = subprocess.run(
        command, cwd=directory, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    spent = time.perf_counter() - start
    if result.returncode != expected:
        raise RuntimeError(f"{' '.join(command)}: exit code {result.returncode}\n{result.stdout[-2000:]}")
    return result.stdout, spent


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
