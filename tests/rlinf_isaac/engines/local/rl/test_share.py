"""Reinforcement learning in two processes on a CPU (gloo)."""

from __future__ import annotations

import os
import signal
from multiprocessing import active_children

import pytest
import torch
from safetensors.torch import load_file
from support import metrics_of, saved

from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.rl.share import share_of
from rlinf_isaac.engines.local.training.team import ALONE, Team
from rlinf_isaac.envs.host.crew import cpu_count
from rlinf_isaac.ground.errors import RlinfIsaacError
from rlinf_isaac.ground.events import CheckpointSaved, Progress

TWO = "compute.num_processes=2"


def test_a_share_is_of_environments_episodes_rows_and_cpus(make_job):
    sizes = ("rl.num_envs=8", "rl.episodes=16", "rl.minibatch=32", "compute.device=cuda")
    config = make_job(TWO, *sizes).config
    assert share_of(config, ALONE) is config
    own = share_of(config, Team(1, 2, 1))
    assert (own.rl.num_envs, own.rl.episodes, own.rl.minibatch) == (4, 8, 16)
    assert (own.compute.device, own.compute.num_processes) == ("cuda:1", 1)
    assert own.compute.env_processes == max(1, cpu_count() // 2)
    assert config.compute.num_processes == 2


def test_two_play_and_learn_what_one_does(make_job, pair):
    """In one minibatch of all chunks; every policy call has one row in both."""
    common = ("rl.minibatch=100", "rl.epochs=1", "rl.iterations=1", "rl.reward=shaped")
    one, two = make_job(*common, "rl.num_envs=1", output="one"), make_job(*common, TWO, output="two")
    expected, found = metrics_of(LocalEngine().rl(one)), metrics_of(pair.rl(two))
    assert found.keys() == expected.keys() == {0, 1}
    for step, values in expected.items():
        assert found[step].keys() == values.keys()
        for name, value in values.items():
            exact = name.startswith(("rollout/", "heldout/")) or name == "train/first_ratio_error"
            if name.startswith("memory/"):  # of each process
                value /= 2
            assert found[step][name] == (value if exact else pytest.approx(value, rel=1e-3, abs=1e-6)), name
    # After one step of Adam the mean gradients are a tenth of the gradients.
    states = [load_file(job.output / "training_state" / "optimizer.safetensors") for job in (one, two)]
    gradients = [{name: each for name, each in state.items() if name.startswith("exp_avg.")} for state in states]
    assert len(gradients[0]) > 20
    assert max(float(each.abs().max()) for each in gradients[0].values()) > 1e-3
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-6)


def test_interrupted_by_hand_or_by_a_kill_they_end_with_the_same_weights(make_job, pair):
    """Of the last iteration the update ends early, for both at once."""
    common = (TWO, "rl.eval_interval=3", "rl.target_kl=1e-12", "rl.epochs=3")
    events = pair.rl(make_job(*common, output="whole"))
    whole = metrics_of(events)
    assert list(whole) == [0, 1, 2, 3]
    assert list(saved(events)) == [1, 2, 3]
    assert whole[3]["train/stopped_early"] == 1.0
    assert [event.done for event in events if isinstance(event, Progress)][-1] == 3

    job = make_job(*common, output="cut")
    pair.rl(job, until=1)
    others = set(active_children())
    run = LocalEngine().rl(job)
    next(event for event in run if isinstance(event, CheckpointSaved) and event.step == 2)
    children = set(active_children()) - others
    assert len(children) >= 2
    os.kill(max(child.pid for child in children), signal.SIGKILL)
    with pytest.raises(RlinfIsaacError, match="a process of the training died"):
        list(run)
    assert not children & set(active_children())
    resumed = pair.rl(job)
    assert saved(resumed) == saved(events)
    assert metrics_of(resumed) == whole
