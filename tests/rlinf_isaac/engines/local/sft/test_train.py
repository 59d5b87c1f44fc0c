from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.sft.batches import batch_indices, load_batch, rows_of
from rlinf_isaac.engines.local.sft.schedule import learning_rate
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.ground.errors import InvalidJob, TrainingDiverged
from rlinf_isaac.ground.events import CheckpointSaved, Metrics, Progress
from rlinf_isaac.jobs.sft import plan
from rlinf_isaac.pi0.observation import Observation


def job(dataset, output, *overrides):
    return plan(small_config(overrides), dataset, None, output)


def test_learning_rate_warms_up_and_ends_at_its_ratio():
    config = small_config(["sft.steps=100", "sft.warmup_steps=10", "sft.lr=1.0", "sft.final_lr_ratio=0.1"]).sft
    rates = [learning_rate(config, step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[9] == max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_the_decay_may_end_before_the_steps_or_go_on_behind_them():
    overrides = ["sft.warmup_steps=10", "sft.lr=1.0", "sft.final_lr_ratio=0.1"]
    whole, short, long = (
        small_config([*overrides, f"sft.steps={steps}", f"sft.decay_steps={decay}"]).sft
        for steps, decay in ((100, 0), (150, 100), (60, 100))
    )
    rates = [learning_rate(whole, step) for step in range(1, 101)]
    assert [learning_rate(short, step) for step in range(1, 151)] == rates + [rates[-1]] * 50
    assert [learning_rate(long, step) for step in range(1, 61)] == rates[:60]


def test_the_rate_is_a_step_ahead_of_openpis():
    """optax's ``warmup_cosine_decay_schedule`` as OpenPI calls it, written down from its documentation."""
    config = small_config(["sft.warmup_steps=10", "sft.lr=1.0", "sft.final_lr_ratio=0.1", "sft.steps=100"]).sft

    def openpis(step):  # 0-based
        if step < 10:
            return 1 / 11 + (1 - 1 / 11) * step / 10
        done = min(1, (step - 10) / 90)
        return 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * done))

    for step in range(1, 11):
        assert openpis(step - 1) == pytest.approx(learning_rate(config, step) * 10 / 11)
    for step in range(11, 101):
        assert openpis(step - 1) == pytest.approx(learning_rate(config, step - 1))


@settings(deadline=None, max_examples=50)
@given(frames=st.integers(1, 200), batch=st.integers(1, 64), seed=st.integers(0, 3))
def test_every_epoch_sees_every_frame_once(frames, batch, seed):
    steps = -(-3 * frames // batch)
    drawn = np.concatenate([batch_indices(frames, batch, seed, step) for step in range(steps)])[: 3 * frames]
    for epoch in drawn.reshape(3, frames):
        assert sorted(epoch) == list(range(frames))


def test_a_batch_is_a_function_of_seed_and_step(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path, "sft.flow_samples=3", "sft.augment.shift=0.1")
    dataset, processor = LeRobotDataset(small_dataset), make_processor(plan_.config, from_json(plan_.norm_stats))
    first, again, later = (load_batch(dataset, processor, plan_.config, step) for step in (5, 5, 6))
    assert first.noise.shape == (12, 8, 32)
    assert first.time.shape == (12,)
    assert ((first.time > 0) & (first.time <= 1)).all()
    for a, b, c in zip(*(each.on(torch.device("cpu")) for each in (first, again, later)), strict=True):
        tensors = [list(x.images.values()) if isinstance(x, Observation) else [x] for x in (a, b, c)]
        assert all(torch.equal(*pair) for pair in zip(*tensors[:2], strict=True))
        assert not torch.equal(tensors[0][0], tensors[2][0])


def test_rows_of_a_batch_keep_their_noise_and_their_changes(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path, "sft.flow_samples=3", "sft.augment.shift=0.1")
    dataset, processor = LeRobotDataset(small_dataset), make_processor(plan_.config, from_json(plan_.norm_stats))
    batch = load_batch(dataset, processor, plan_.config, 0)
    parts = [batch.rows(first, first + 2).on(torch.device("cpu")) for first in (0, 2)]
    observation, *rest = batch.on(torch.device("cpu"))
    for camera in observation.present_cameras:
        assert torch.equal(torch.cat([part[0].images[camera] for part in parts]), observation.images[camera])
    for whole, *halves in zip(rest, *(part[1:] for part in parts), strict=True):
        assert torch.equal(torch.cat(halves), whole)


@given(world=st.integers(1, 8), size=st.integers(1, 5), parts=st.integers(1, 4))
def test_processes_that_take_turns_have_all_rows_between_them(world, size, parts):
    shares = [rows_of(rank, world, size, parts) for rank in range(world)]
    turns = np.stack(shares).reshape(world, parts, size).transpose(1, 0, 2)
    assert turns.reshape(-1).tolist() == list(range(world * size * parts))


@pytest.mark.parametrize("rank", [0, 1])
def test_rows_in_turns_are_loaded_as_they_are_in_the_whole_batch(small_dataset, tmp_path, rank):
    plan_ = job(small_dataset, tmp_path, "sft.flow_samples=3", "sft.augment.shift=0.1")
    dataset, processor = LeRobotDataset(small_dataset), make_processor(plan_.config, from_json(plan_.norm_stats))
    whole = load_batch(dataset, processor, plan_.config, 1)
    own = load_batch(dataset, processor, plan_.config, 1, rows_of(rank, 2, 1, 2))
    assert len(own.actions) == 2
    for part, row in enumerate((rank, 2 + rank)):
        (ours, *rest), (theirs, *expected) = (
            batch.rows(first, first + 1).on(torch.device("cpu")) for batch, first in ((own, part), (whole, row))
        )
        assert all(torch.equal(*pair) for pair in zip(rest, expected, strict=True))
        assert all(torch.equal(ours.images[camera], theirs.images[camera]) for camera in theirs.present_cameras)


def test_flow_time_is_openpis_beta(small_dataset, tmp_path):
    from scipy import stats

    plan_ = job(small_dataset, tmp_path, "sft.flow_samples=500")
    dataset, processor = LeRobotDataset(small_dataset), make_processor(plan_.config, from_json(plan_.norm_stats))
    times = np.concatenate([load_batch(dataset, processor, plan_.config, step).time for step in range(5)])
    assert stats.kstest((times - 0.001) / 0.999, stats.beta(1.5, 1).cdf).pvalue > 0.01


def test_events_of_a_run_and_of_the_same_run_again(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path)
    events = [event for event in LocalEngine().sft(plan_) if not isinstance(event, Progress)]
    assert [event.step for event in events if isinstance(event, Metrics)] == [2, 4, 6]
    saved = [event for event in events if isinstance(event, CheckpointSaved)]
    assert [event.step for event in saved] == [2, 4, 6]
    bundle = read_bundle(saved[-1].path)
    assert bundle.digest == saved[-1].digest
    assert bundle.norm_stats_bytes == plan_.norm_stats
    assert dict(bundle.lineage) == plan_.lineage
    assert bundle.config["env"]["task"] == "stack2"
    assert bundle.config["tokenizer"]["kind"] == "byte"

    again = [event for event in LocalEngine().sft(plan_) if not isinstance(event, Progress)]
    assert sorted(map(repr, again)) == sorted(map(repr, events))


@pytest.mark.parametrize("masters", ["true", "false"])
def test_bfloat16_resumes_with_the_same_bytes(small_dataset, tmp_path, masters):
    overrides = ("compute.dtype=bfloat16", f"compute.master_weights={masters}")
    whole, stopped = (job(small_dataset, tmp_path / name, *overrides) for name in ("whole", "stopped"))
    wanted = [event for event in LocalEngine().sft(whole) if isinstance(event, CheckpointSaved)]
    assert read_bundle(wanted[-1].path).manifest.dtypes.keys() == {"BF16", "F32"}
    run = LocalEngine().sft(stopped)
    next(event for event in run if isinstance(event, CheckpointSaved))
    run.close()
    found = [event for event in LocalEngine().sft(stopped) if isinstance(event, CheckpointSaved)]
    assert [(event.step, event.digest) for event in found] == [(event.step, event.digest) for event in wanted]


@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_add_up_to_the_batch(small_dataset, tmp_path, size):
    jobs = [job(small_dataset, tmp_path / str(micro), f"sft.micro_batch={micro}") for micro in (0, size)]
    metrics = [[each for each in LocalEngine().sft(plan_) if isinstance(each, Metrics)] for plan_ in jobs]
    for whole, parts in zip(*metrics, strict=True):
        for name in ("train/loss", "train/grad_norm"):
            assert parts.values[name] == pytest.approx(whole.values[name], rel=1e-4)


def test_the_loss_falls(small_dataset, tmp_path):
    overrides = [
        "sft.steps=150",
        "sft.save_interval=150",
        "sft.warmup_steps=10",
        "sft.batch_size=16",
        "sft.log_interval=30",
    ]
    events = LocalEngine().sft(job(small_dataset, tmp_path, *overrides))
    losses = [event.values["train/loss"] for event in events if isinstance(event, Metrics)]
    assert losses[-1] < 0.7 * losses[0]


def test_divergence_is_an_error_and_earlier_checkpoints_stay(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path, "sft.lr=1e30", "sft.steps=40", "sft.save_interval=1", "sft.warmup_steps=0")
    with pytest.raises(TrainingDiverged, match=r"sft\.lr"):
        list(LocalEngine().sft(plan_))
    for path in (plan_.output / "checkpoints").iterdir():
        read_bundle(path)


def test_two_trainings_in_one_directory_are_refused(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path)
    first = LocalEngine().sft(plan_)
    next(first)
    with pytest.raises(InvalidJob, match="another process"):
        next(LocalEngine().sft(plan_))
    first.close()
    assert next(LocalEngine().sft(plan_))
