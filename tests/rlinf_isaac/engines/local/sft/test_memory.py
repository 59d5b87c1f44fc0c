"""The estimate against what was measured on a GPU, and against tensors that are there; a device that is too small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import small_config

from rlinf_isaac.config import load_config
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.local.sft.device_memory import explained
from rlinf_isaac.engines.local.sft.ema import Average
from rlinf_isaac.engines.local.sft.memory import GIB, remedies, training_memory
from rlinf_isaac.engines.local.sft.start import model_and_optimiser
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.ground.errors import TrainingOutOfMemory

TWO = ("compute.num_processes=2",)
FOUR_POINTS = ("sft.flow_samples=4", "model.max_token_len=96", "model.action_horizon=16")


def peak(*overrides: str, preset: str = "pi0") -> float:
    return training_memory(load_config(preset, overrides)).peak / GIB


@pytest.mark.parametrize(
    ("overrides", "measured"),
    [
        (["compute.master_weights=false"], 70),
        (["compute.master_weights=false", "sft.batch_size=48"], 96),
        ([], 93),
        (["sft.batch_size=48"], 118.1),
        ([*FOUR_POINTS], 100),
        (["sft.trainable=lora", "sft.batch_size=8", "model.max_token_len=48"], 21.7),
        (["sft.batch_size=64", *TWO, "compute.sharding=shard"], 80.4),
        (["sft.batch_size=64", *TWO, "compute.sharding=replicate"], 107.5),
        ([*FOUR_POINTS, "sft.trainable=expert"], 14.4),
    ],
    ids=[
        "bfloat16, 32",
        "bfloat16, 48",
        "float32 copies, 32",
        "the same, 48",
        "four points",
        "LoRA",
        "shards",
        "copies",
        "expert",
    ],
)
def test_one_gpu_held_what_is_computed(overrides, measured):
    assert peak(*overrides) == pytest.approx(measured, rel=0.06, abs=1.6)


def test_each_camera_of_the_task_takes_more(tmp_path):
    sizes = []
    slots = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
    for count in (1, 2, 3):
        cameras = "".join(f"  {slot}: observation.images.{slot}\n" for slot in slots[:count])
        file = tmp_path / f"{count}.yaml"
        vectors = "state: {dims: 14}\naction: {dims: 14}\n"
        file.write_text(f"name: t\nprompt: dataset\ncontrol_hz: 50\ncameras:\n{cameras}{vectors}")
        sizes.append(peak(f"env.task={file}"))
    assert sizes[1] == peak()
    assert sizes[1] - sizes[0] == pytest.approx(sizes[2] - sizes[1], rel=0.01)
    assert sizes[1] - sizes[0] > 5


def test_each_choice_takes_less():
    whole = peak()
    for choice in ("micro_batch=8", "activation_checkpointing=true", "trainable=lora", "trainable=expert"):
        assert peak(f"sft.{choice}") < whole - 10
    assert peak("sft.trainable=lora", "sft.train_vision=false") < peak("sft.trainable=lora")
    assert peak(preset="pi0_base") > whole + 12, "an average of 3.5 billion numbers"


@pytest.mark.parametrize("trainable", ["all", "expert", "lora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_has_to_be_there_is_what_is_there(trainable, dtype):
    """Parameters, copies, moments and average of a real model after a step of every parameter."""
    config = small_config([f"sft.trainable={trainable}", f"compute.dtype={dtype}", "sft.ema_decay=0.9"])
    spread, optimiser = model_and_optimiser(SftJob(config, Path(), "", b"", Path()), Team(), None)
    model = spread.model
    average = Average(model, optimiser, 0.9)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "gemma_expert.lm_head" not in name:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    found = training_memory(config)

    def size(tensors):
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    masters = getattr(optimiser, "masters", {})
    assert found.weights == size(model.parameters())
    assert found.copies == size(master for parameter, master in masters.items() if parameter is not master)
    assert found.moments == size(
        state[name] for state in optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")
    )
    assert found.average == size(average.values.values())
    assert found.gradients == size(parameter for parameter in model.parameters() if parameter.requires_grad)


def test_what_is_left_to_advise():
    assert [words for words, _ in remedies(load_config("pi0", ["sft.batch_size=1", "sft.trainable=lora"]))] == [
        "sft.activation_checkpointing=true"
    ]
    assert all(peak / GIB < 98 for _, peak in remedies(load_config("pi0")))


def test_a_device_too_small_is_an_error_that_says_what_to_do():
    config = load_config("pi0")
    with pytest.raises(TrainingOutOfMemory) as caught, explained(config):
        torch.empty(1 << 58)
    for word in ("sft.micro_batch=16", "sft.activation_checkpointing=true", "sft.trainable=lora", "97.8 GiB"):
        assert word in str(caught.value)
    with pytest.raises(TrainingOutOfMemory, match="no room"), explained(config):
        raise torch.OutOfMemoryError("no room")
    with pytest.raises(RuntimeError, match="size of tensor"), explained(config):
        torch.zeros(2) + torch.zeros(3)
