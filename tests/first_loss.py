"""The first loss of `sft --base`, and its batch, for tests that ask the model of the base's writer what it says of it.

The verb runs as a person types it, on the demonstrations that all tests share. What it recorded is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import Result
from corpus.foreign import DUMMY
from mlflow import MlflowClient
from support import SMALL_PRESET, small_config

from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.config import build_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.mixture import open_datasets
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.local.sft.batches import load_batch
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.pi0.observation import Observation

PALIGEMMA_TOKENS = 257_152
RELATIVE = 1e-5
"""How far the loss of `sft` may be from the writer's, relative to it."""


@dataclass(frozen=True)
class FirstStep:
    """The first step of a fine-tuning.

    Attributes:
        loss: ``train/loss`` of step 1, as MLflow has it.
        observation, actions, noise, time: its batch, as `Pi0.forward` gets them: (B, H, A), (B, H, A), (B,).
        output: what the verb printed.
    """

    loss: float
    observation: Observation
    actions: torch.Tensor
    noise: torch.Tensor
    time: torch.Tensor
    output: str

    def assert_loss(self, theirs: float, unread: Sequence[str] = ()) -> None:
        """Raise AssertionError unless the loss is `theirs`, and every parameter but `unread` came from the base."""
        new = f"{len(unread)} new: {', '.join(unread)}" if unread else "0 new"
        assert f"parameters from the base, {new}" in self.output
        print(f"\n  loss {self.loss:.6f}, relative difference {abs(self.loss - theirs) / theirs:.1e}")
        assert self.loss == pytest.approx(theirs, rel=RELATIVE)


def writer_overrides(pi05: bool, *more: str) -> list[str]:
    """Of the preset of tests: Gemmas of OpenPI's size ``dummy``; a pi0.5 reads the state in its prompt."""
    prompt = ["model.discrete_state_input=true", "model.max_token_len=200"] if pi05 else []
    return [*DUMMY, f"model.pi05={str(pi05).lower()}", *prompt, *more]


def writer_config(overrides: Sequence[str]) -> JobConfig:
    """The job of `first_step` with these overrides."""
    return small_config(overrides)


def first_step(
    invoke: Callable[..., Result], store: str, dataset: Path, base: Path, overrides: Sequence[str]
) -> FirstStep:
    """Fine-tune `base` for one step."""
    steps = ("--steps", "1", "--save-interval", "1", "--overrides", ",".join([*overrides, "sft.log_interval=1"]))
    result = invoke("sft", "--base", base, "--preset", SMALL_PRESET, "--dataset", dataset, "--output", "out", *steps)
    assert result.exit_code == 0, result.output + repr(result.exception)

    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    (metric,) = client.get_metric_history(run.info.run_id, "train/loss")
    assert metric.step == 1
    (checkpoints,) = Path("out/sft").glob("*/checkpoints")
    trained = read_bundle(find_bundles(checkpoints)[1])
    config = build_config(trained.job, str(trained.path))
    processor = make_processor(config, from_json(trained.norm_stats_bytes))
    batch = load_batch(open_datasets((dataset,)), processor, config, 0)
    return FirstStep(metric.value, *batch.on(torch.device("cpu")), result.stdout)
