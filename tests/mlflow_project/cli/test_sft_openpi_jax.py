"""`sft --base` of checkpoints of OpenPI's JAX model, as orbax wrote them and as its converter made PyTorch's of them.

Opt-in, in the interpreter that README makes with the extra openpi, and pytest in it (CONTRIBUTING.md, "Opt-in tests").
JAX compiles for minutes:

    openpi-venv/bin/python -m pytest -m parity tests/mlflow_project/cli/test_sft_openpi_jax.py

The converter is RLinf's copy of OpenPI's examples/convert_jax_model_to_pytorch.py, line by line the same code: OpenPI's
packages leave the examples out.
"""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from first_loss import FirstStep, first_step, writer_config, writer_overrides
from openpi_jax_models import MU, jax_config, jax_model, save_released, save_state
from openpi_models import openpi_model, openpi_observation, size_openpi, training_loss

from rlinf_isaac.config.schema import ModelConfig
from rlinf_isaac.pi0.layout import UNREAD

pytestmark = pytest.mark.parity
pytest.importorskip("openpi.models.pi0")


def overrides_of(pi05: bool) -> list[str]:
    return writer_overrides(pi05, *MU, "sft.loss_on_real_dims=false")


def loss_of(model: Any, step: FirstStep, monkeypatch: pytest.MonkeyPatch) -> float:
    """What OpenPI's JAX training minimises, for the frames, the noise and the times of a step."""
    import jax
    import jax.numpy as jnp
    from openpi.models import pi0
    from openpi.models.model import Observation

    observation = step.observation
    images = {name: image.permute(0, 2, 3, 1).numpy() for name, image in observation.images.items()}
    assert all(image.dtype == np.uint8 for image in images.values())
    prompt = {
        "tokenized_prompt": observation.prompt_tokens.to(torch.int32).numpy(),
        "tokenized_prompt_mask": observation.prompt_mask.numpy(),
    }
    masks = {name: mask.numpy() for name, mask in observation.image_masks.items()}
    given = {"image": images, "image_mask": masks, "state": observation.state.numpy(), **prompt}
    given = jax.tree.map(jnp.asarray, Observation.from_dict(given))
    # compute_loss draws them: noise as it is, times from which it makes beta * 0.999 + 0.001.
    noise, beta = step.noise.numpy(), ((step.time.double() - 0.001) / 0.999).float().numpy()
    draws = {"normal": lambda key, shape: jnp.asarray(noise), "beta": lambda key, a, b, shape: jnp.asarray(beta)}
    random = types.SimpleNamespace(**vars(jax.random) | draws)
    monkeypatch.setattr(pi0, "jax", types.SimpleNamespace(**vars(jax) | {"random": random}))  # flax draws, too
    with jax.default_matmul_precision("highest"):
        losses = model.compute_loss(jax.random.key(0), given, jnp.asarray(step.actions.numpy()), train=False)
    return float(np.asarray(losses).mean())


@pytest.mark.parametrize(
    ("pi05", "with_lora", "save"),
    [(False, False, save_released), (True, True, save_state)],
    ids=["pi0-released", "pi05-trained-lora"],
)
def test_the_first_loss_is_that_of_openpis_jax_model(
    invoke, store, small_dataset, tmp_path, monkeypatch, pi05, with_lora, save
):
    overrides = overrides_of(pi05)
    theirs = jax_model(monkeypatch, writer_config(overrides).model, with_lora=with_lora)
    step = first_step(invoke, store, small_dataset, save(tmp_path / "jax", theirs), overrides)
    step.assert_loss(loss_of(theirs, step, monkeypatch), UNREAD)


def convert(monkeypatch: pytest.MonkeyPatch, source: Path, output: Path, config: ModelConfig) -> None:
    """Run the converter, in which the full sizes are written down, at those of `config`."""
    converter = pytest.importorskip("rlinf.utils.ckpt_convertor.convert_openpi_jax_to_python")
    heads = {"num_attention_heads": config.vlm.num_heads, "head_dim": config.vlm.head_dim}
    sizes = types.SimpleNamespace(
        vision_config=types.SimpleNamespace(hidden_size=config.vision.width, num_hidden_layers=config.vision.depth),
        text_config=types.SimpleNamespace(hidden_size=config.vlm.width, num_hidden_layers=config.vlm.depth, **heads),
    )
    slice_ = converter.slice_paligemma_state_dict
    monkeypatch.setattr(converter, "slice_paligemma_state_dict", lambda state_dict, _: slice_(state_dict, sizes))
    converter.convert_pi0_checkpoint(str(source), "float32", str(output), jax_config(config))
    assert {file.name for file in output.iterdir()} == {"model.safetensors", "config.json"}


@pytest.mark.parametrize("pi05", [False, True], ids=["pi0", "pi05"])
def test_the_first_loss_of_a_conversion_is_that_of_openpis_pytorch_model(
    invoke, store, small_dataset, tmp_path, monkeypatch, pi05
):
    import safetensors.torch
    from openpi.models import gemma

    # The converter takes it for granted that the heads together are as wide as the model, as in full size.
    narrow = dataclasses.replace(gemma.get_config("dummy"), head_dim=8)
    monkeypatch.setattr(gemma, "get_config", lambda name: narrow)
    overrides = [*overrides_of(pi05), "model.vlm.head_dim=8", "model.expert.head_dim=8"]
    config = writer_config(overrides).model
    size_openpi(monkeypatch, config)
    # The converter looks for "pi05" in the path.
    source = save_state(tmp_path / ("pi05_base" if pi05 else "pi0_base"), jax_model(monkeypatch, config))
    base = tmp_path / "converted"
    convert(monkeypatch, source, base, config)
    (base / "config.json").unlink()  # it names a variant of OpenPI, which has wider heads
    step = first_step(invoke, store, small_dataset, base, overrides)
    theirs = openpi_model(config)
    safetensors.torch.load_model(theirs, str(base / "model.safetensors"))  # as OpenPI's load_pytorch
    arguments = (openpi_observation(step.observation), step.actions, step.noise, step.time)
    step.assert_loss(training_loss(theirs, *arguments).mean().item())
