"""Policies that the real ``lerobot`` saves, made into bundles. Opt-in: ``pytest -m lerobot``.

lerobot 0.4.4 and 0.6.1 were tried, each in an environment of its own with pytest, hypothesis, omegaconf and this
project on the path. lerobot's model is of one size only, several gigabytes; a tiny one of ours stands in its place,
with the same names. All files are lerobot's own work: its policy, its config and its processors save themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus.foreign import (
    ACTION_DIM,
    STATE_DIM,
    dummy_config,
    dummy_model,
    lerobot_config,
    lerobot_steps,
    save_lerobot,
)
from lerobot_policies import module, policy_config, save_policy
from safetensors.torch import load_file

from rlinf_isaac.checkpoint.foreign.configured import configure
from rlinf_isaac.checkpoint.foreign.make import BundleContent, make_bundle, plan_conversion
from rlinf_isaac.checkpoint.foreign.sources import find_source
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.data.norm_stats.normaliser import Normalizer
from rlinf_isaac.pi0.model import Pi0

pytestmark = pytest.mark.lerobot
pytest.importorskip("lerobot")
pytest.importorskip("transformers")  # of which its pi0 and pi05 are made

KINDS = pytest.mark.parametrize("kind", ["pi0", "pi05"])
VISION = [f"model.vision.{each}" for each in ("width=32", "depth=1", "mlp_dim=32", "patch_size=32")]


@pytest.fixture
def save(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Save a policy of `kind` and its processors with lerobot, as its training does; returns the directory."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def save(kind: str, *, tuned: bool = True, **changes: Any) -> Path:
        model = dummy_model(dummy_config(kind == "pi05"))
        upper, modeling = kind.upper(), module(kind, "modeling")
        monkeypatch.setattr(modeling, f"{upper}Pytorch", lambda *args, **kwargs: model)
        policy = getattr(modeling, f"{upper}Policy")(policy_config(kind, **changes))
        return save_policy(monkeypatch, kind, policy, tmp_path / "run/checkpoints/000030/pretrained_model", tuned=tuned)

    return save


@KINDS
def test_it_becomes_a_bundle(save, tmp_path, kind):
    path = save(kind)
    source = find_source(path.parent)
    assert (source.kind, source.step) == ("lerobot", 30)
    configured = configure("tiny", source.said, VISION)
    assert (configured.config.model.action_horizon, configured.config.policy.action_chunk) == (20, 10)
    assert configured.config.model.pi05 == configured.config.model.discrete_state_input == (kind == "pi05")
    assert {"action_horizon", "action_chunk", "max_token_len", "norm"} <= configured.stated
    content = BundleContent(
        config=configured.config,
        asset_id="cube",
        step=30,
        norm_stats=source.norm_stats.read(),
        norm_stats_record=dict(source.norm_stats.record),
        stated=configured.stated,
        assumed=configured.assumed,
    )
    bundle = make_bundle(plan_conversion(source, configured.config.model), content, tmp_path / "30")
    loaded = Pi0(configured.config.model)
    load_weights(bundle, loaded)
    theirs = {name.removeprefix("model."): tensor for name, tensor in load_file(path / "model.safetensors").items()}
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in theirs.items())


@KINDS
def test_it_normalises_as_lerobots_own_processor(save, kind):
    """States and actions of the size of the data; dims that hardly move are where the two epsilons differ."""
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.processor import NormalizerProcessorStep, UnnormalizerProcessorStep

    path = save(kind)
    source = find_source(path)
    stats = from_json(source.norm_stats.read())
    mode = source.said.values["policy.norm"]
    steps = json.loads((path / "policy_preprocessor.json").read_text())["steps"]
    own = next(step for step in steps if step["registry_name"] == "normalizer_processor")
    features = {"observation.state": PolicyFeature(FeatureType.STATE, (STATE_DIM,))}
    modes = {FeatureType[name]: NormalizationMode[value] for name, value in own["config"]["norm_map"].items()}
    forward = NormalizerProcessorStep(features=features, norm_map=modes)
    forward.load_state_dict(load_file(path / own["state_file"]))
    rows = np.random.default_rng(1).normal(1, 3, size=(50, STATE_DIM)).astype(np.float32)
    expected = forward._normalize_observation({"observation.state": torch.from_numpy(rows)}, inverse=False)
    ours = Normalizer.of("state", stats.state, mode).normalize(rows)
    np.testing.assert_allclose(ours, expected["observation.state"].numpy(), atol=3e-6)

    backward = UnnormalizerProcessorStep(
        features={"action": PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))}, norm_map=modes
    )
    backward.load_state_dict(load_file(path / own["state_file"]))
    sampled = np.random.default_rng(2).normal(0, 1, size=(50, ACTION_DIM)).astype(np.float32)
    expected = backward._normalize_action(torch.from_numpy(sampled), inverse=True).numpy()
    ours = Normalizer.of("actions", stats.actions, mode).unnormalize(sampled)
    np.testing.assert_allclose(ours, expected, atol=2e-5)


@KINDS
def test_relative_actions_are_lerobots_own(save, kind):
    """The mask against what lerobot's step makes of the same names."""
    if "use_relative_actions" not in vars(getattr(module(kind, "configuration"), f"{kind.upper()}Config")):
        pytest.skip("this lerobot knows no relative actions")
    from lerobot.processor import RelativeActionsProcessorStep

    from rlinf_isaac.data.delta_actions import parse_delta_mask

    names = ["x", "y", "z", "Left_Gripper", "roll", "gripper.pos", "w"]
    path = save(kind, use_relative_actions=True, action_feature_names=names, relative_exclude_joints=["gripper"])
    said = find_source(path).said
    step = RelativeActionsProcessorStep(enabled=True, exclude_joints=["gripper"], action_names=names)
    assert list(parse_delta_mask(said.values["policy.delta_actions"])) == step._build_mask(ACTION_DIM)


@KINDS
@pytest.mark.parametrize("tuned", [True, False])
def test_the_corpus_imitates_it(save, tmp_path, kind, tuned):
    """Same files, same tensors by name, dtype and shape, same JSON where it is read."""
    theirs = save(kind, tuned=tuned)
    ours = save_lerobot(tmp_path / "ours", dummy_model(dummy_config(kind == "pi05")), kind, tuned=tuned)
    config = json.loads((theirs / "config.json").read_text())
    imitated = lerobot_config(kind)
    common = config.keys() & imitated.keys()
    assert {key: imitated[key] for key in common} == {key: config[key] for key in common}
    assert load_file(theirs / "model.safetensors").keys() == load_file(ours / "model.safetensors").keys()
    steps = json.loads((theirs / "policy_preprocessor.json").read_text())["steps"]
    imitated_steps = lerobot_steps(imitated, None)["steps"]
    names = [step["registry_name"] for step in imitated_steps if step["registry_name"] != "relative_actions_processor"]
    real = [step["registry_name"] for step in steps if step["registry_name"] != "relative_actions_processor"]
    assert sorted(name for name in real if "new_line" not in name) == sorted(names)
    if tuned:
        (file,) = theirs.glob("policy_preprocessor_step_*_normalizer_processor.safetensors")
        (other,) = ours.glob("policy_preprocessor_step_*_normalizer_processor.safetensors")
        real_stats, imitated_stats = load_file(file), load_file(other)
        for name, tensor in real_stats.items():
            assert (imitated_stats[name].shape, imitated_stats[name].dtype) == (tensor.shape, tensor.dtype)
    else:
        assert not list(theirs.glob("policy_*.safetensors"))
