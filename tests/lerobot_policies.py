"""pi0 and pi0.5 of the real ``lerobot`` (0.4.4 and 0.6.1 were tried) in files of its own making."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from corpus.foreign import ACTION_DIM, STATE_DIM, statistics

from rlinf_isaac.config.schema import GemmaConfig, ModelConfig
from rlinf_isaac.pi0.observation import CAMERAS

VIEWS = {"front": CAMERAS[0], "wrist": CAMERAS[1]}
"""lerobot's name of a camera -> the place that its images have in the model."""


def module(kind: str, part: str) -> ModuleType:
    """``lerobot.policies.pi0.modeling_pi0`` of ``pi0``, ``modeling``."""
    from lerobot.utils import import_utils

    # lerobot looks for a distribution named transformers. 0.4 wants a patched one, which PyPI has under another name.
    import_utils._transformers_available = importlib.util.find_spec("transformers") is not None
    return importlib.import_module(f"lerobot.policies.{kind}.{part}_{kind}")


def policy_config(kind: str, **changes: Any) -> Any:
    """A config of lerobot for two cameras of 64 pixels. Its model is to be of OpenPI's variant ``dummy``."""
    from lerobot.configs.types import FeatureType, PolicyFeature

    images = {f"observation.images.{view}": (3, 64, 64) for view in VIEWS}
    inputs = {name: PolicyFeature(FeatureType.VISUAL, shape) for name, shape in images.items()}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (STATE_DIM,))
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))}
    arguments = {"chunk_size": 20, "n_action_steps": 10, "device": "cpu", **changes}
    config_class = getattr(module(kind, "configuration"), f"{kind.upper()}Config")
    config = config_class(input_features=inputs, output_features=outputs, **arguments)
    config.paligemma_variant = config.action_expert_variant = "dummy"  # which its constructor refuses
    return config


def size_lerobot(monkeypatch: pytest.MonkeyPatch, kind: str, model: ModelConfig) -> None:
    """Let lerobot's policies have the sizes of `model`: what its code has fixed is changed right before transformers
    builds of it; everything else of lerobot's constructors, and all that runs, stays its own."""
    modeling = module(kind, "modeling")

    def gemma(sizes: GemmaConfig) -> Any:
        return modeling.GemmaConfig(**vars(sizes))

    sizes = iter([model.vlm, model.expert])
    monkeypatch.setattr(modeling, "get_gemma_config", lambda variant: gemma(next(sizes)))
    vision = {
        "hidden_size": model.vision.width,
        "intermediate_size": model.vision.mlp_dim,
        "num_hidden_layers": model.vision.depth,
        "num_attention_heads": model.vision.num_heads,
        "patch_size": model.vision.patch_size,
        "projection_dim": model.vlm.width,
    }
    suffix = "WithPiGemma" if hasattr(modeling, "PaliGemmaForConditionalGenerationWithPiGemma") else ""
    if not suffix:
        pytest.importorskip("transformers.models.siglip.check")  # what lerobot 0.4 knows the patched transformers by
    vlm = f"PaliGemmaForConditionalGeneration{suffix}"
    expert = "PiGemmaForCausalLM" if suffix else "GemmaForCausalLM"
    build_vlm, build_expert = getattr(modeling, vlm), getattr(modeling, expert)

    def smaller_vlm(config: Any) -> torch.nn.Module:
        config.text_config.vocab_size = model.vocab_size
        for name, value in vision.items():
            setattr(config.vision_config, name, value)
        return build_vlm(config=config)

    def smaller_expert(config: Any) -> torch.nn.Module:
        config.vocab_size = model.vocab_size
        return build_expert(config=config)

    monkeypatch.setattr(modeling, vlm, smaller_vlm)
    monkeypatch.setattr(modeling, expert, smaller_expert)


def save_policy(monkeypatch: pytest.MonkeyPatch, kind: str, policy: Any, path: Path, *, tuned: bool = True) -> Path:
    """Save a policy and its processors with lerobot, as its training does; with statistics only where it is `tuned`."""
    from lerobot.processor import tokenizer_processor

    # It would be downloaded, and only its name is saved.
    monkeypatch.setattr(tokenizer_processor.AutoTokenizer, "from_pretrained", lambda *args, **kwargs: object())
    stats = {name: statistics(dim) for name, dim in (("observation.state", STATE_DIM), ("action", ACTION_DIM))}
    make = getattr(module(kind, "processor"), f"make_{kind}_pre_post_processors")
    policy.save_pretrained(path)
    for processor in make(policy.config, dataset_stats=stats if tuned else None):
        processor.save_pretrained(path)
    return path
