"""What workers share, and how they end. That they play and learn as one process does: test_train.py."""

from __future__ import annotations

import time
from multiprocessing import get_context

import pytest
import torch

from rlinf_isaac.engines.local.rl.players import Players
from rlinf_isaac.engines.local.rl.start import load_actor_critic


def test_workers_play_by_weights_that_change_in_place_and_keep_prefixes_for_all(make_job, result_of):
    job = make_job("rl.workers=2", "rl.num_envs=2")
    policy = load_actor_critic(job)
    with Players(job.config, job.start.norm_stats_bytes, policy) as players:
        first = result_of(players.explore([5, 6], range(2), 1))
        prefixes, log_probs = players.buffer.prefixes.near.clone(), players.buffer.log_prob.clone()
        with torch.no_grad():
            policy.model.action_out_proj.weight.mul_(1.5)
        second = result_of(players.explore([5, 6], range(2), 1))
        played = [int(row) for rollout in first for episode in rollout.episodes for row in episode.rows]
        begun = [int(episode.rows[0]) for rollout in second for episode in rollout.episodes]
    assert len(set(played)) == 4
    assert played == [int(row) for rollout in second for episode in rollout.episodes for row in episode.rows]
    # The first observation of an episode does not depend on the weights, and its prefix not on those that changed.
    assert torch.equal(players.buffer.prefixes.near[begun], prefixes[begun])
    assert float(prefixes[begun].abs().max()) > 0
    assert not torch.equal(players.buffer.log_prob[begun], log_probs[begun])


def test_an_error_ends_the_workers_and_no_other_process(make_job):
    job = make_job("rl.workers=2", "rl.num_envs=2")
    policy = load_actor_critic(job)
    other = get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    players = Players(job.config, job.start.norm_stats_bytes, policy)

    def fail() -> None:
        with players:
            assert [each.seed for each in players.evaluate([3, 1])] == [1, 3]
            assert len(players.processes.processes.started) == 2
            raise RuntimeError("on purpose")

    try:
        with pytest.raises(RuntimeError, match="on purpose"):
            fail()
        assert [worker.is_alive() for worker in players.processes.processes.started] == [False, False]
        assert other.is_alive()
    finally:
        other.kill()
        other.join()
