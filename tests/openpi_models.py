"""OpenPI's own PyTorch model (PyPI: rlinf-openpi) at sizes that fit into a test."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch

from rlinf_isaac.config.schema import GemmaConfig, ModelConfig
from rlinf_isaac.pi0.observation import Observation


def size_openpi(monkeypatch: pytest.MonkeyPatch, config: ModelConfig) -> None:
    """Let every ``PI0Pytorch`` have the sizes of `config`, see images as they are, and run without a compiler."""
    pi0_pytorch = pytest.importorskip("openpi.models_pytorch.pi0_pytorch")
    preprocessing = pytest.importorskip("openpi.models_pytorch.preprocessing_pytorch")
    size = (config.vision.image_size,) * 2
    preprocess = preprocessing.preprocess_observation_pytorch
    monkeypatch.setattr(pi0_pytorch, "PaliGemmaWithExpertModel", _sized_transformers(config))
    monkeypatch.setitem(preprocess.__kwdefaults__, "image_resolution", size)
    # Training augments images at random; a comparison needs both to see the same.
    monkeypatch.setattr(
        preprocessing, "preprocess_observation_pytorch", lambda observation, train: preprocess(observation, train=False)
    )
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def openpi_model(config: ModelConfig) -> torch.nn.Module:
    """``PI0Pytorch`` in float32, after `size_openpi`."""
    from openpi.models_pytorch.pi0_pytorch import PI0Pytorch

    names = ("pi05", "action_dim", "action_horizon", "max_token_len")
    own = {name: getattr(config, name) for name in names}
    variants = {"paligemma_variant": "dummy", "action_expert_variant": "dummy", "dtype": "float32"}
    return PI0Pytorch(types.SimpleNamespace(**own, **variants)).float()


def training_loss(model: torch.nn.Module, *arguments: Any) -> torch.Tensor:
    """Squared errors (B, H, A) as OpenPI's training asks for them: of its observation, actions, noise, times."""
    model.train()
    model.gradient_checkpointing_enable()  # its plain training path asks for an attribute that only this sets
    return model(*arguments)


def randomise(model: torch.nn.Module) -> None:
    """Random values in every parameter, so that none can be left out or mistaken for another without being seen."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.1, generator=generator)


def _sized_transformers(config: ModelConfig) -> type[torch.nn.Module]:
    """A class in place of OpenPI's ``PaliGemmaWithExpertModel`` whose sizes come from `config`: OpenPI's constructor
    has the full sizes written into it. Everything else of it is inherited."""
    gemma_pytorch = pytest.importorskip("openpi.models_pytorch.gemma_pytorch")
    from transformers import GemmaForCausalLM, PaliGemmaForConditionalGeneration
    from transformers.models.auto import CONFIG_MAPPING

    def text(gemma: GemmaConfig, adaptive: bool) -> dict:
        return dict(
            model_type="gemma",
            hidden_size=gemma.width,
            intermediate_size=gemma.mlp_dim,
            num_hidden_layers=gemma.depth,
            num_attention_heads=gemma.num_heads,
            num_key_value_heads=gemma.num_kv_heads,
            head_dim=gemma.head_dim,
            hidden_activation="gelu_pytorch_tanh",
            torch_dtype="float32",
            vocab_size=config.vocab_size,
            use_adarms=adaptive,
            adarms_cond_dim=gemma.width if adaptive else None,
        )

    vision = dict(
        model_type="siglip_vision_model",
        hidden_size=config.vision.width,
        intermediate_size=config.vision.mlp_dim,
        num_hidden_layers=config.vision.depth,
        num_attention_heads=config.vision.num_heads,
        patch_size=config.vision.patch_size,
        image_size=config.vision.image_size,
        projection_dim=config.vlm.width,
        projector_hidden_act="gelu_fast",
        vision_use_head=False,
        torch_dtype="float32",
    )

    class SizedPaliGemmaWithExpert(gemma_pytorch.PaliGemmaWithExpertModel):
        def __init__(self, vlm, expert, use_adarms=None, precision="float32") -> None:
            torch.nn.Module.__init__(self)
            sizes = dict(projection_dim=config.vlm.width, hidden_size=config.vlm.width, vocab_size=config.vocab_size)
            paligemma = CONFIG_MAPPING["paligemma"](text_config=text(config.vlm, False), vision_config=vision, **sizes)
            paligemma._vocab_size = paligemma.image_token_index = config.vocab_size
            self.paligemma = PaliGemmaForConditionalGeneration(config=paligemma)
            self.gemma_expert = GemmaForCausalLM(config=CONFIG_MAPPING["gemma"](**text(config.expert, config.pi05)))
            self.gemma_expert.model.embed_tokens = None

    return SizedPaliGemmaWithExpert


def openpi_observation(observation: Observation) -> Any:
    """OpenPI's observation of the same images, as bytes in its order of axes, state and prompt."""
    from openpi.models.model import Observation as Theirs

    images = {name: image.permute(0, 2, 3, 1).contiguous() for name, image in observation.images.items()}
    assert all(image.dtype == torch.uint8 for image in images.values())
    prompt = {"tokenized_prompt": observation.prompt_tokens, "tokenized_prompt_mask": observation.prompt_mask}
    masks = dict(observation.image_masks)
    return Theirs.from_dict({"image": images, "image_mask": masks, "state": observation.state, **prompt})
