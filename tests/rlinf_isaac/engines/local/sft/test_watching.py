"""What is measured beside the training loss: on held-out episodes, and by playing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.data.lerobot.format import STATE
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.data.subset import held_out_episodes, held_out_part, training_part
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.sft.batches import load_batch
from rlinf_isaac.engines.local.sft.validation import Validation
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.ground.events import CheckpointSaved, FileSaved, Metrics
from rlinf_isaac.jobs.sft import plan
from rlinf_isaac.pi0.model import Pi0

HELD_OUT = ("sft.val_episodes=1", "sft.val_frames=8")
PLAYED = ("sft.eval_interval=4", "sft.eval_episodes=2", "env.max_episode_steps=16", "env.renderer=rays")


def job(dataset, output, *overrides):
    return plan(small_config(overrides), dataset, None, output)


def told(events, name):
    """Step -> value of a metric."""
    return {event.step: event.values[name] for event in events if isinstance(event, Metrics) and name in event.values}


def test_held_out_episodes_are_never_trained_on(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path, *HELD_OUT)
    dataset, processor = LeRobotDataset(small_dataset), make_processor(plan_.config, from_json(plan_.norm_stats))
    (apart,) = held_out_episodes(2, 1, plan_.config.sft.seed)
    part = training_part(dataset, 1, plan_.config.sft.seed)
    assert part.num_frames == dataset.num_frames - dataset.episode_lengths[apart]
    states = dataset.column(STATE)
    own = states[dataset.episode_of(np.arange(dataset.num_frames)) == apart]
    assert np.array_equal(held_out_part(dataset, 1, plan_.config.sft.seed).column(STATE), own)
    normalised = {tuple(row) for row in processor.state_normalizer.normalize(own).round(5).tolist()}
    for step in range(part.num_frames // 4 + 1):
        drawn = load_batch(part, processor, plan_.config, step).observation.state[:, : own.shape[1]]
        assert not {tuple(row) for row in drawn.numpy().round(5).tolist()} & normalised
    assert training_part(dataset, 0, 0) is dataset


@pytest.mark.parametrize("decay", [0, 0.5])
def test_figures_are_those_of_the_checkpoint_and_of_nothing_else(small_dataset, tmp_path, decay):
    plan_ = job(small_dataset, tmp_path, *HELD_OUT, f"sft.ema_decay={decay}")
    events = list(LocalEngine().sft(plan_))
    losses, errors = told(events, "val/loss"), told(events, "val/action_mse")
    assert list(losses) == list(errors) == [2, 4, 6]
    assert len(set(losses.values())) == 3
    # The checkpoint of a step, loaded again, gives the figures of that step.
    dataset, processor = LeRobotDataset(small_dataset), make_processor(plan_.config, from_json(plan_.norm_stats))
    model = Pi0(plan_.config.model)
    validation = Validation(dataset, processor, plan_.config, Team())
    for event in events:
        if isinstance(event, CheckpointSaved):
            load_weights(read_bundle(event.path), model)
            figures = validation.measure(model)
            assert figures["val/loss"] == pytest.approx(losses[event.step], rel=1e-6)
            assert figures["val/action_mse"] == pytest.approx(errors[event.step], rel=1e-6)
            assert model.training


def test_the_error_is_that_of_sampled_chunks(small_dataset, tmp_path):
    """A model whose every velocity is noise - actions would have none: here actions are what noise becomes."""
    plan_ = job(small_dataset, tmp_path, *HELD_OUT)
    dataset, processor = LeRobotDataset(small_dataset), make_processor(plan_.config, from_json(plan_.norm_stats))
    validation = Validation(dataset, processor, plan_.config, Team())

    class Still(Pi0):
        """It predicts no movement: the noise stays."""

        def velocity(self, state, x_t, time, cache):
            return torch.zeros_like(x_t), None

    figures = validation.measure(Still(plan_.config.model))
    samples = [batch for batch, _ in validation._batches(validation._share())]
    real = plan_.config.policy.env_action_dim
    off = torch.cat([(each.noise - each.actions)[..., :real] for each in samples])
    assert len(off) == 8
    assert figures["val/action_mse"] == pytest.approx(float(off.square().mean()), rel=1e-5)
    assert figures["val/loss"] == pytest.approx(float(off.square().mean()), rel=1e-5)


def test_a_picture_of_every_checkpoint(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path, *HELD_OUT, "sft.val_interval=3")
    events = list(LocalEngine().sft(plan_))
    assert list(told(events, "val/loss")) == [3, 6]
    pictures = {event.name: event.path for event in events if isinstance(event, FileSaved)}
    assert list(pictures) == [f"validation/step-{step}.png" for step in (2, 4, 6)]
    for path in pictures.values():
        with Image.open(path) as picture:
            colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) > 20
    again = list(LocalEngine().sft(plan_))
    assert {event.name for event in again if isinstance(event, FileSaved)} == set(pictures)
    assert told(again, "val/loss") == told(events, "val/loss")


def test_two_processes_measure_what_one_does(small_dataset, tmp_path, pair):
    one, two = (job(small_dataset, tmp_path / str(n), *HELD_OUT, f"compute.num_processes={n}") for n in (1, 2))
    expected, found = list(LocalEngine().sft(one)), pair.sft(two)
    for name in ("val/loss", "val/action_mse"):
        assert told(found, name) == pytest.approx(told(expected, name), rel=1e-3)
    assert two.output.joinpath("validation/step-6.png").exists()


def test_checkpoints_play_and_an_interrupt_before_it_is_made_up_for(small_dataset, tmp_path):
    whole, stopped = (job(small_dataset, tmp_path / name, *PLAYED) for name in ("whole", "stopped"))
    events = list(LocalEngine().sft(whole))
    assert list(told(events, "heldout/success_once")) == [4, 6]
    lengths = told(events, "heldout/episode_length")
    assert set(lengths.values()) <= set(range(1, 17))
    run = LocalEngine().sft(stopped)
    for event in run:
        if isinstance(event, CheckpointSaved) and event.step == 4:
            break  # the checkpoint is there, and has not played
    run.close()
    assert told(list(LocalEngine().sft(stopped)), "heldout/episode_length") == lengths
