"""Fine-tuning in two processes on a CPU (gloo), the model sharded over them."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.sft.batches import load_batch
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.ground.errors import RlinfIsaacError, TrainingDiverged
from rlinf_isaac.ground.events import CheckpointSaved, Metrics, Progress
from rlinf_isaac.jobs.sft import plan
from rlinf_isaac.pi0.model import Pi0, initialise

AUGMENTED = ("sft.augment.shift=0.1", "sft.flow_samples=2")


def job(dataset, output, processes, *overrides, sharding="shard"):
    spread = (f"compute.num_processes={processes}", f"compute.sharding={sharding}")
    return plan(small_config([*spread, *AUGMENTED, *overrides]), dataset, None, output)


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def until_first_checkpoint(plan_) -> CheckpointSaved:
    run = LocalEngine().sft(plan_)
    saved = next(event for event in run if isinstance(event, CheckpointSaved))
    run.close()
    return saved


def largest_difference(first, second) -> float:
    ours, theirs = (load_file(path / "model.safetensors") for path in (first, second))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)


@pytest.mark.parametrize("sharding", ["replicate", "shard"])
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-4), pytest.param("bfloat16", 2e-2, marks=pytest.mark.slow)])
def test_two_train_what_one_trains_and_one_goes_on_from_two(small_dataset, tmp_path, pair, dtype, most, sharding):
    more = (f"compute.dtype={dtype}", "sft.micro_batch=1" if sharding == "replicate" else "sft.micro_batch=0")
    one, two = (job(small_dataset, tmp_path / str(n), n, *more, sharding=sharding) for n in (1, 2))
    assert one.lineage == two.lineage
    expected, events = list(LocalEngine().sft(one)), pair.sft(two)
    for event, other in zip(of(events, Metrics), of(expected, Metrics), strict=True):
        assert event.step == other.step
        for name in ("train/loss", "train/grad_norm"):
            assert event.values[name] == pytest.approx(other.values[name], rel=most)
    found, wanted = of(events, CheckpointSaved), of(expected, CheckpointSaved)
    assert [event.step for event in found] == [event.step for event in wanted] == [2, 4, 6]
    for event, other in zip(found, wanted, strict=True):
        assert largest_difference(event.path, other.path) < most
        assert read_bundle(event.path).manifest.dtypes == read_bundle(other.path).manifest.dtypes
    assert [event.done for event in of(events, Progress)] == [event.done for event in of(expected, Progress)]

    # Interrupted after the first checkpoint, and ended by two again (the same bytes), or by one.
    stopped = job(small_dataset, tmp_path / "later", 2, *more, sharding=sharding)
    pair.sft(stopped, until=2)
    alone = replace(stopped, processes=1, output=tmp_path / "later-alone")
    shutil.copytree(stopped.output, alone.output)
    for later, apart in ((pair.sft(stopped), 0), (LocalEngine().sft(alone), most)):
        saved = of(later, CheckpointSaved)
        assert [event.step for event in saved] == [2, 4, 6]
        assert largest_difference(saved[-1].path, found[-1].path) <= apart


@pytest.mark.parametrize("processes", [1, 2])
def test_float32_copies_begin_with_the_values_before_they_are_rounded(small_dataset, tmp_path, pair, processes):
    """A step that is far too small for float32 leaves them as they began."""
    more = ("compute.dtype=bfloat16", "sft.save_interval=1", "sft.lr=1e-20", "sft.weight_decay=0")
    plan_ = job(small_dataset, tmp_path, processes, *more)
    saved = until_first_checkpoint(plan_) if processes == 1 else of(pair.sft(plan_, until=1), CheckpointSaved)[0]
    state = load_file(plan_.output / "training_state" / "optimizer.safetensors")
    model = Pi0(plan_.config.model)
    initialise(model, plan_.config.sft.seed)
    begun = dict(model.named_parameters())
    copies = {name.removeprefix("master."): each for name, each in state.items() if name.startswith("master.")}
    rounded = load_file(saved.path / "model.safetensors")
    assert len(copies) > 20
    for name, copy in copies.items():
        torch.testing.assert_close(copy, begun[name].detach(), rtol=0, atol=1e-15)
        if name in rounded:
            assert torch.equal(rounded[name], copy.to(torch.bfloat16))
    assert any(not torch.equal(copy, copy.to(torch.bfloat16).float()) for copy in copies.values())


def test_shares_are_the_rows_of_the_batch(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path, 2)
    dataset, processor = LeRobotDataset(small_dataset), make_processor(plan_.config, from_json(plan_.norm_stats))
    size = plan_.config.sft.batch_size
    whole = load_batch(dataset, processor, plan_.config, 3).on(torch.device("cpu"))
    shares = [
        load_batch(dataset, processor, plan_.config, 3, Team(rank, 2).rows(size)).on(torch.device("cpu"))
        for rank in range(2)
    ]
    for index in (1, 2, 3):
        assert torch.equal(torch.cat([share[index] for share in shares]), whole[index])
    for camera in whole[0].present_cameras:
        assert torch.equal(torch.cat([share[0].images[camera] for share in shares]), whole[0].images[camera])


def test_what_one_of_them_raises_is_raised(small_dataset, tmp_path):
    diverging = job(small_dataset, tmp_path, 2, "sft.lr=1e30", "sft.steps=40", "sft.warmup_steps=0")
    with pytest.raises(TrainingDiverged, match=r"sft\.lr"):
        list(LocalEngine().sft(diverging))


def test_a_killed_process_ends_the_others_and_the_checkpoint_stays(small_dataset, tmp_path):
    plan_ = job(small_dataset, tmp_path, 2, "sft.steps=100000", "sft.save_interval=5")
    others = set(_children())  # of what else this session shares
    run = LocalEngine().sft(plan_)
    saved = next(event for event in run if isinstance(event, CheckpointSaved))
    children = sorted(set(_children()) - others)
    assert len(children) >= 2
    os.kill(max(children), signal.SIGKILL)
    with pytest.raises(RlinfIsaacError, match="a process of the training died"):
        list(run)
    assert not set(children) & set(_children())
    assert read_bundle(saved.path).step == 5


def _children() -> list[int]:
    from multiprocessing import active_children

    return [child.pid for child in active_children() if child.pid is not None]


@pytest.mark.parametrize("sharding", [pytest.param("replicate", marks=pytest.mark.slow), "shard"])
def test_what_stays_float32_is_averaged_too(small_dataset, tmp_path, pair, sharding):
    """Of the bfloat16 model: norms and projections, whole in every process, train as in one process."""
    more = ("compute.dtype=bfloat16", "sft.steps=2", "sft.save_interval=2", "sft.lr=1e-2", "sft.warmup_steps=0")
    one, two = (job(small_dataset, tmp_path / str(n), n, *more, sharding=sharding) for n in (1, 2))
    first, second = (of(events, CheckpointSaved)[-1].path for events in (LocalEngine().sft(one), pair.sft(two)))
    ours, theirs = (load_file(path / "model.safetensors") for path in (first, second))
    whole = [name for name, tensor in ours.items() if tensor.dtype == torch.float32]
    assert len(whole) > 10
    begun = dict(initial(one).named_parameters())
    moved = max(float((ours[name] - begun[name]).abs().max()) for name in whole)
    apart = max(float((ours[name] - theirs[name]).abs().max()) for name in whole)
    assert apart < 0.2 * moved


def initial(plan_) -> Pi0:
    model = Pi0(plan_.config.model)
    initialise(model, plan_.config.sft.seed)
    return model


def test_measuring_the_average_of_shards_leaves_the_training_as_it_was(small_dataset, tmp_path, pair):
    """The weights that were gathered to measure the average do not train on."""
    more = ("sft.ema_decay=0.5", "sft.lr=0.01", "sft.warmup_steps=0", "sft.val_episodes=1", "sft.val_interval=1")
    more += ("sft.val_frames=8", "sft.steps=3", "sft.save_interval=3")
    one, two = (job(small_dataset, tmp_path / str(n), n, *more) for n in (1, 2))
    expected, found = list(LocalEngine().sft(one)), pair.sft(two)
    for event, other in zip(of(found, Metrics), of(expected, Metrics), strict=True):
        # At this learning rate a gradient of nearly zero decides by its sign, which rounding has an effect on.
        for name, most in (("train/loss", 1e-4), ("val/loss", 1e-2)):
            if name in event.values:
                assert event.values[name] == pytest.approx(other.values[name], rel=most), (name, event.step)
