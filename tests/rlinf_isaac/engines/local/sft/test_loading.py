"""Loader processes: the bytes of one thread, and an error when one is killed."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from forked_workers import spawn_workers
from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.sft.batches import load_batch
from rlinf_isaac.engines.local.sft.loading import BatchLoader
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.ground.errors import ObservationError, RlinfIsaacError
from rlinf_isaac.ground.events import CheckpointSaved, Metrics
from rlinf_isaac.jobs.sft import plan
from rlinf_isaac.pi0.policy import Processor

AUGMENTED = ("sft.augment.shift=0.1", "sft.augment.brightness=0.3", "sft.flow_samples=2")


class Telling(Processor):
    """Refuses every observation, and says what the process that was asked has imported."""

    def observation(self, images, states, prompts):
        heavy = [name for name in ("mlflow", "mujoco") if name in sys.modules]
        raise ObservationError.of("bad-image", f"{os.getpid()} {heavy} {torch.cuda.is_initialized()}", "none")


def parts(dataset, output, workers, *overrides):
    job = plan(small_config([f"sft.loader_workers={workers}", *AUGMENTED, *overrides]), dataset, None, output)
    return job, LeRobotDataset(dataset), make_processor(job.config, from_json(job.norm_stats))


@pytest.fixture
def children():
    """The processes that were started since; others of the same pytest process are left out."""
    before = set(active_children())
    return lambda: [child for child in active_children() if child not in before]


def tensors(batch) -> list[torch.Tensor]:
    observation, *rest = batch.on(torch.device("cpu"))
    images = [observation.images[camera] for camera in observation.present_cameras]
    return [*images, observation.state, observation.prompt_tokens, observation.prompt_mask, *rest]


@pytest.mark.parametrize(
    ("workers", "first", "rows"),
    [(0, 0, slice(None)), (0, 2, np.array([3, 1])), (1, 0, slice(None)), (2, 2, np.array([3, 1]))],
)
def test_batches_are_those_of_their_steps(small_dataset, tmp_path, children, workers, first, rows):
    job, dataset, processor = parts(small_dataset, tmp_path, workers)
    with BatchLoader(job.config, dataset, processor, first, rows) as loader:
        for step in range(first, job.config.sft.steps):
            found, expected = loader.get(step), load_batch(dataset, processor, job.config, step, rows)
            assert found.observation.present_cameras == expected.observation.present_cameras
            for ours, theirs in zip(tensors(found), tensors(expected), strict=True):
                assert torch.equal(ours, theirs)
        assert loader.waited_s > 0
    assert children() == []


def test_a_training_has_the_same_checkpoints_and_goes_on_with_another_number(small_dataset, tmp_path, children):
    plain, _, _ = parts(small_dataset, tmp_path / "plain", 0)
    events = list(LocalEngine().sft(plain))
    wanted = [(event.step, event.digest) for event in events if isinstance(event, CheckpointSaved)]
    for event in (event for event in events if isinstance(event, Metrics)):
        assert event.values["time/samples_per_second"] == pytest.approx(4 * event.values["time/steps_per_second"])
        assert event.values["time/data_wait"] > 0

    stopped, _, _ = parts(small_dataset, tmp_path / "stopped", 2)
    run = LocalEngine().sft(stopped)
    next(event for event in run if isinstance(event, CheckpointSaved))
    run.close()
    assert children() == []
    later, _, _ = parts(small_dataset, tmp_path / "stopped", 1)
    assert later.output == stopped.output
    found = [event for event in LocalEngine().sft(later) if isinstance(event, CheckpointSaved)]
    # config.json says with how many processes a checkpoint was made; the weights are the same.
    assert [event.step for event in found] == [step for step, _ in wanted]
    for event in found:
        ours, theirs = (path / "model.safetensors" for path in (event.path, plain.output / f"checkpoints/{event.step}"))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_two_processes_that_train_have_loaders_each(small_dataset, tmp_path, pair):
    plain, loaded = (
        parts(small_dataset, tmp_path / str(workers), workers, "compute.num_processes=2")[0] for workers in (0, 2)
    )
    ours, theirs = (
        [read_bundle(event.path).digest for event in pair.sft(job) if isinstance(event, CheckpointSaved)]
        for job in (plain, loaded)
    )
    assert len(ours) == len(theirs) == 3
    last = [(job.output / "checkpoints/6/model.safetensors").read_bytes() for job in (plain, loaded)]
    assert last[0] == last[1]


def test_what_a_worker_raises_is_raised_whole_and_it_has_imported_little(small_dataset, tmp_path, monkeypatch):
    spawn_workers(monkeypatch)
    job, dataset, _ = parts(small_dataset, tmp_path, 1)
    processor = Telling(*_arguments(job))
    with (
        BatchLoader(job.config, dataset, processor, 0, slice(None)) as loader,
        pytest.raises(ObservationError) as raised,
    ):
        loader.get(0)
    (problem,) = raised.value.problems
    pid, said = problem.cause.split(" ", 1)
    assert int(pid) != os.getpid()
    assert said == "[] False"
    assert str(raised.value) == str(problem)


def _arguments(job):
    from rlinf_isaac.pi0.tokenizer import load_tokenizer

    config = job.config
    return config.model, config.policy, from_json(job.norm_stats), load_tokenizer(config.policy, config.model)


def test_a_killed_worker_ends_the_training_with_its_cause(small_dataset, tmp_path, children):
    job, _, _ = parts(small_dataset, tmp_path, 2, "sft.steps=100000", "sft.save_interval=5")
    handler = signal.getsignal(signal.SIGCHLD)
    run = LocalEngine().sft(job)
    saved = next(event for event in run if isinstance(event, CheckpointSaved))
    workers = children()
    assert len(workers) == 2
    os.kill(workers[0].pid, signal.SIGKILL)
    with pytest.raises(RlinfIsaacError, match=rf"pid {workers[0].pid}\) was ended by SIGKILL.*sft\.loader_workers"):
        list(run)
    assert children() == []
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert read_bundle(saved.path).step == 5
