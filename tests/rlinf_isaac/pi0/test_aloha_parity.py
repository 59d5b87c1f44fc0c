"""An adapted robot with relative joints, from its numbers to the model's and back, as OpenPI's own transforms.

Opt-in (CONTRIBUTING.md, "Opt-in tests"), because it needs OpenPI.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rlinf_isaac.data.norm_stats import FeatureStats, NormStats
from rlinf_isaac.pi0.policy import Processor
from rlinf_isaac.pi0.tokenizer import ByteTokenizer
from rlinf_isaac.tasks.adapters import find_adapter

pytestmark = pytest.mark.parity
DIMS, HORIZON, ROWS = 14, 6, 5


def test_the_numbers_are_those_of_openpis_transforms(config, policy_config) -> None:
    aloha = pytest.importorskip("openpi.policies.aloha_policy")
    transforms, normalize = pytest.importorskip("openpi.transforms"), pytest.importorskip("openpi.shared.normalize")
    random = np.random.default_rng(0)

    def statistics() -> FeatureStats:
        mean, std = random.normal(size=DIMS), random.uniform(0.1, 2, DIMS)
        return FeatureStats(mean, std, mean - 2 * std, mean + 2 * std)

    ours = NormStats(statistics(), statistics())
    theirs = {
        key: normalize.NormStats(**{name: getattr(each, name) for name in ("mean", "std", "q01", "q99")})
        for key, each in (("state", ours.state), ("actions", ours.actions))
    }
    mask = transforms.make_bool_mask(6, -1, 6, -1)
    into = [
        aloha.AlohaInputs(adapt_to_pi=True),
        transforms.DeltaActions(mask),
        transforms.Normalize(theirs, use_quantiles=config.pi05),
    ]
    back = [
        transforms.Unnormalize(theirs, use_quantiles=config.pi05),
        transforms.AbsoluteActions(mask),
        aloha.AlohaOutputs(adapt_to_pi=True),
    ]
    states = random.uniform(0, 1, (ROWS, DIMS)).astype(np.float32)
    actions = random.uniform(-1, 1, (ROWS, HORIZON, DIMS)).astype(np.float32)
    policy = dataclasses.replace(policy_config, env_action_dim=DIMS, delta_actions="6,-1,6,-1")
    processor = Processor(config, policy, ours, ByteTokenizer(), find_adapter("aloha"))
    observed = processor.observation({}, states, ["Fold."] * ROWS).state[:, :DIMS].numpy()
    targets = processor.target_actions(actions, states)
    returned = processor.robot_actions(targets, states)
    for row in range(ROWS):
        data = aloha.make_aloha_example() | {"state": states[row].copy(), "actions": actions[row].copy()}
        for transform in into:
            data = transform(data)
        np.testing.assert_allclose(observed[row], data["state"], atol=1e-5)
        np.testing.assert_allclose(targets[row, :, :DIMS], data["actions"], atol=1e-5)
        data = {"state": data["state"].copy(), "actions": data["actions"].copy()}
        for transform in back:
            data = transform(data)
        np.testing.assert_allclose(returned[row], data["actions"], atol=1e-5)
        np.testing.assert_allclose(returned[row], actions[row], atol=1e-5)
