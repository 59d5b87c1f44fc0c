"""What trains (``sft.trainable``) and the average of the weights, in whole trainings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.sft.ema import Average
from rlinf_isaac.engines.local.sft.start import model_and_optimiser
from rlinf_isaac.engines.local.training.optimiser import trained_copy
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.ground.events import CheckpointSaved, FileSaved, Metrics, Progress
from rlinf_isaac.jobs.sft import plan
from rlinf_isaac.pi0.lora import add_adapters, is_adapter, merged, scales
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.precision import to_precision

VLM = "paligemma_with_expert.paligemma."
BF16, LORA, EXPERT = "compute.dtype=bfloat16", "sft.trainable=lora", "sft.trainable=expert"
EMA, RAW = "sft.ema_decay=0.9", "sft.evaluate_raw=true"


def job(dataset, output, *overrides):
    return plan(small_config(overrides), dataset, None, output)


def told(events):
    """Everything but progress, without places and times."""
    found = []
    for event in events:
        if isinstance(event, CheckpointSaved):
            found.append((event.path.parent.name, event.step, event.digest))
        elif isinstance(event, FileSaved):
            found.append((event.name, event.path.read_bytes()))
        elif isinstance(event, Metrics):
            found.append((event.step, event.values["train/loss"]))
    return found


def begun(config) -> Pi0:
    """The model that a training without a base begins with."""
    model = Pi0(config.model)
    initialise(model, config.sft.seed)
    return to_precision(model, config.compute.dtype)


def weights_of(output, step, root="checkpoints"):
    return load_file(output / root / str(step) / "model.safetensors")


def until(plan_, step=4):
    """Train up to a checkpoint."""
    run = LocalEngine().sft(plan_)
    next(event for event in run if isinstance(event, CheckpointSaved) and event.step == step)
    run.close()


def state_of(plan_):
    """What a training keeps at step 4."""
    until(plan_)
    return load_file(plan_.output / "training_state" / "optimizer.safetensors")


@pytest.mark.parametrize(
    "overrides",
    [
        *([EXPERT, BF16], [LORA], [LORA, BF16], [LORA, BF16, EMA, RAW], [EMA, RAW], [EMA, BF16]),
        [EMA, BF16, "compute.master_weights=false"],
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_an_interrupted_run_ends_with_the_same_bytes(small_dataset, tmp_path, overrides):
    whole, stopped = (job(small_dataset, tmp_path / name, *overrides) for name in ("whole", "stopped"))
    kept = state_of(whole)
    until(stopped, 2)
    again = state_of(stopped)
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    until(stopped, 2)
    wanted = told(LocalEngine().sft(job(small_dataset, tmp_path / "at once", *overrides)))
    assert sorted(told(LocalEngine().sft(stopped)), key=repr) == sorted(wanted, key=repr)
    assert sorted(told(LocalEngine().sft(stopped)), key=repr) == sorted(wanted, key=repr), "announced again"
    assert load_file(stopped.output / "training_state" / "optimizer.safetensors") == {}, "no step follows"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_expert_leaves_every_byte_of_the_vlm(small_dataset, tmp_path, dtype):
    plan_ = job(small_dataset, tmp_path, EXPERT, f"compute.dtype={dtype}")
    assert not any(VLM in name for name in state_of(plan_)), "no moments, no float32 copies"
    list(LocalEngine().sft(plan_))
    found, start = weights_of(plan_.output, 6), begun(plan_.config).state_dict()
    moved = {name for name, each in found.items() if not torch.equal(each, start[name])}
    assert not any(name.startswith(VLM) for name in moved)
    assert {name.split(".")[0] for name in moved} >= {"action_in_proj", "state_proj", "paligemma_with_expert"}
    assert "paligemma_with_expert.gemma_expert.model.layers.0.mlp.up_proj.weight" in moved


def test_frozen_vision_stays_and_the_rest_moves(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path, "sft.train_vision=false")
    list(LocalEngine().sft(plan_))
    found, start = weights_of(plan_.output, 6), begun(plan_.config).state_dict()
    moved = {name for name, each in found.items() if not torch.equal(each, start[name])}
    assert not any("vision_tower" in name for name in moved)
    assert any("multi_modal_projector" in name for name in moved)
    assert any("language_model" in name for name in moved)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bundle_is_the_base_with_the_adapters_beside_it(small_dataset, tmp_path, dtype):
    plan_ = job(small_dataset, tmp_path, LORA, f"compute.dtype={dtype}")
    assert not any("language_model.layers.0.mlp.up_proj.weight" in name for name in state_of(plan_))
    list(LocalEngine().sft(plan_))
    directory = plan_.output / "adapters" / "6"
    stored = load_file(directory / "adapter_model.safetensors")
    config = json.loads((directory / "adapter_config.json").read_text())
    assert (config["r"], set(config["rank_pattern"].values())) == (16, {32})
    model, start = add_adapters(begun(plan_.config), plan_.config), begun(plan_.config).state_dict()
    trained = {
        name.removeprefix("base_model.model.").removesuffix(".weight" if ".lora_" in name else ""): each
        for name, each in stored.items()
    }
    missing = model.load_state_dict(trained, strict=False)
    assert missing.unexpected_keys == []
    expected, found = merged(model.state_dict(), scales(model)), weights_of(plan_.output, 6)
    for name, each in found.items():
        assert torch.equal(each, expected[name]), name
    adapted = {f"{layer}.weight" for layer in scales(model)}
    moved = {name for name, each in found.items() if not torch.equal(each, start[name])}
    assert moved <= adapted | {name for name in trained if not is_adapter(name)}
    assert len(moved & adapted) > 10
    assert any("vision_tower" in name for name in moved)
    load_weights(read_bundle(plan_.output / "checkpoints" / "6"), Pi0(plan_.config.model))


def test_the_average_is_that_of_the_weights_after_every_step(small_dataset, tmp_path):
    every = "sft.save_interval=1"
    averaged, plain = job(small_dataset, tmp_path, EMA, RAW, every), job(small_dataset, tmp_path / "plain", every)
    events = [list(LocalEngine().sft(each)) for each in (averaged, plain)]
    mean = begun(plain.config).state_dict()
    for step in range(1, 7):
        weights = weights_of(plain.output, step)
        raw = weights_of(averaged.output, step, "checkpoints-raw")
        assert all(torch.equal(each, weights[name]) for name, each in raw.items())
        mean = {name: 0.9 * mean[name] + 0.1 * each for name, each in weights.items()}
        for name, each in weights_of(averaged.output, step).items():
            torch.testing.assert_close(each, mean[name], rtol=1e-5, atol=1e-6)
    roots = [event.path.parent.name for event in events[0] if isinstance(event, CheckpointSaved)]
    assert roots == ["checkpoints", "checkpoints-raw"] * 6


def test_what_is_frozen_has_no_average(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path, EXPERT, EMA, BF16)
    names = {name.removeprefix("average.") for name in state_of(plan_) if name.startswith("average.")}
    assert names
    assert not any(name.startswith(VLM) for name in names)


@pytest.mark.parametrize(
    "overrides",
    [pytest.param([LORA, BF16, EMA], id="lora"), pytest.param([EXPERT, BF16], id="expert", marks=pytest.mark.slow)],
)
def test_two_processes_train_what_one_trains(small_dataset, tmp_path, pair, overrides):
    """Frozen and trained parameters, of two formats, lie in one unit of FSDP."""
    one, two = (job(small_dataset, tmp_path / str(n), f"compute.num_processes={n}", *overrides) for n in (1, 2))
    expected, found = (
        [event for event in events if not isinstance(event, Progress)]
        for events in (LocalEngine().sft(one), pair.sft(two))
    )
    for event, other in zip(found, expected, strict=True):
        if isinstance(event, Metrics):
            assert event.values["train/loss"] == pytest.approx(other.values["train/loss"], rel=2e-2)
    ours, theirs = weights_of(two.output, 6), weights_of(one.output, 6)
    for name, each in ours.items():
        torch.testing.assert_close(each, theirs[name], rtol=0, atol=2e-2)
    later = job(small_dataset, tmp_path / "later", "compute.num_processes=2", *overrides)
    pair.sft(later, until=2)
    assert told(found)[-1] == told(pair.sft(later))[-1]


def test_bfloat16_parameters_are_averaged_by_their_float32_copies():
    config = small_config([BF16, EMA])
    spread, optimiser = model_and_optimiser(SftJob(config, Path(), "", b"", Path()), Team(), None)
    model = spread.model
    average = Average(model, optimiser, 0.9)
    name, parameter = next((n, each) for n, each in model.named_parameters() if each.dtype == torch.bfloat16)
    begun = trained_copy(optimiser, parameter).detach().clone()
    for group in optimiser.param_groups:
        group["lr"] = 1e-6  # far below what bfloat16 holds
    parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    average.update()
    moved = trained_copy(optimiser, parameter).detach()
    assert not torch.equal(moved, begun)
    torch.testing.assert_close(average.values[name], 0.9 * begun + 0.1 * moved, rtol=1e-7, atol=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("trainable", ["all", "expert", "lora"])
def test_on_a_gpu_the_peak_is_a_metric(small_dataset, tmp_path, trainable):
    overrides = ["compute.device=cuda", BF16, EMA, f"sft.trainable={trainable}"]
    events = list(LocalEngine().sft(job(small_dataset, tmp_path, *overrides)))
    entries = [event.values for event in events if isinstance(event, Metrics)]
    assert len(entries) == 3
    assert all(entry["gpu/peak_memory_gib"] > 0 for entry in entries)
