from __future__ import annotations

import numpy as np
import pytest
import torch
from support import small_config

from rlinf_isaac.config.suite import configs_of
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.mixture import open_datasets
from rlinf_isaac.data.norm_stats import compute_norm_stats, from_json, settings_of
from rlinf_isaac.engines.local.sft.batches import batch_frames, load_batch, load_frames
from rlinf_isaac.engines.local.sft.task_frames import processor_of
from rlinf_isaac.engines.local.sft.validation import Validation
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.jobs.sft import plan
from rlinf_isaac.pi0.model import Pi0, initialise


@pytest.fixture
def job(walks, walk_datasets, tmp_path):
    def make(*overrides):
        config = small_config([f"env.task={','.join(map(str, walks))}", "norm_stats.batch_size=1", *overrides])
        return plan(config, walk_datasets[0], None, tmp_path, mixed_with=walk_datasets[1:])

    return make


def alone(job):
    """(dataset, processor, config) of each task, made without the suite."""
    for config, root in zip(configs_of(job.config), job.datasets, strict=True):
        dataset = LeRobotDataset(root)
        yield dataset, make_processor(config, compute_norm_stats(dataset, **settings_of(config))), config


def test_each_task_has_its_own_norm_stats(job):
    training = job()
    assert training.config.suite["statistics"] == "per-task"
    found = {training.config.policy.asset_id: training.norm_stats, **training.further_norm_stats}
    expected = {config.policy.asset_id: processor for _, processor, config in alone(training)}
    assert found.keys() == expected.keys() == {"walker", "diver"}
    for asset_id, processor in expected.items():
        stats = from_json(found[asset_id])
        assert np.array_equal(stats.state.mean, processor.state_normalizer.offset)


def test_each_row_is_what_its_task_alone_makes_of_it(job):
    training = job()
    mixture, processors = open_datasets(training.datasets), processor_of(training)
    indices = np.random.default_rng(0).permutation(mixture.num_frames)
    observation, actions, states = load_frames(mixture, processors, training.config, indices)
    assert observation.present_cameras == ("base_0_rgb", "left_wrist_0_rgb")
    numbers, own = mixture.located(indices)
    assert set(numbers) == {0, 1}
    for number, (dataset, processor, config) in enumerate(alone(training)):
        rows = np.flatnonzero(numbers == number)
        expected, expected_actions, expected_states = load_frames(dataset, processor, config, own[rows])
        assert torch.equal(actions[rows], expected_actions)
        assert torch.equal(observation.state[rows], expected.state)
        dims = expected_states.shape[1]
        assert np.array_equal(states[rows, :dims], expected_states)
        assert not states[rows, dims:].any()
        for camera in expected.images:
            assert torch.equal(observation.images[camera][rows], expected.images[camera])
            assert torch.equal(observation.image_masks[camera][rows], expected.image_masks[camera])
        length = expected.prompt_tokens.shape[1]
        assert torch.equal(observation.prompt_tokens[rows, :length], expected.prompt_tokens)
        assert torch.equal(observation.prompt_mask[rows, :length], expected.prompt_mask)
        assert not observation.prompt_mask[rows, length:].any()


def test_a_camera_that_a_task_lacks_is_masked_in_its_rows_alone(job):
    training = job()
    mixture = open_datasets(training.datasets)
    indices = np.arange(mixture.num_frames)
    observation, *_ = load_frames(mixture, processor_of(training), training.config, indices)
    hand = observation.image_masks["left_wrist_0_rgb"].numpy()
    assert np.array_equal(hand, mixture.located(indices)[0] == 0)
    assert observation.image_masks["base_0_rgb"].all()


@pytest.mark.parametrize("overrides", [[], ["sft.mix=[3,1]"], ["sft.val_episodes=1"]])
def test_a_row_does_not_depend_on_the_other_rows_of_its_batch(job, overrides):
    from rlinf_isaac.data.subset import training_part

    training = job(*overrides, "sft.batch_size=8")
    sft = training.config.sft
    dataset = training_part(open_datasets(training.datasets, sft.mix), sft.val_episodes, sft.seed)
    processors = processor_of(training)
    for step in range(3):
        whole = load_batch(dataset, processors, training.config, step)
        for rows in (np.array([5]), np.array([2, 7, 0])):
            part = load_batch(dataset, processors, training.config, step, rows)
            assert torch.equal(part.actions, whole.actions[rows])
            assert torch.equal(part.noise, whole.noise[rows])
            assert torch.equal(part.observation.state, whole.observation.state[rows])
            assert part.observation.present_cameras == whole.observation.present_cameras
            assert part.changes.keys() == whole.changes.keys()
            for camera, change in whole.changes.items():
                for field, expected in zip(part.changes[camera], change.rows(torch.from_numpy(rows)), strict=True):
                    assert (field is None and expected is None) or torch.equal(field, expected)


def test_weights_decide_how_often_each_task_is_drawn(job):
    training = job("sft.mix=[3,1]", "sft.batch_size=8")
    mixture = open_datasets(training.datasets, training.config.sft.mix)
    steps = range(mixture.num_frames)  # eight epochs
    numbers = np.concatenate([mixture.located(batch_frames(mixture, 8, 0, step))[0] for step in steps])
    assert np.bincount(numbers).tolist() == [8 * count for count in mixture.counts]


def test_held_out_episodes_of_either_task_are_measured_and_drawn(job, tmp_path):
    training = job("sft.val_episodes=2", "sft.val_frames=6")
    model = Pi0(training.config.model)
    initialise(model, 0)
    validation = Validation(open_datasets(training.datasets), processor_of(training), training.config, Team())
    figures = validation.measure(model)
    assert all(np.isfinite(value) for value in figures.values())
    validation.plot(model, 2, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
