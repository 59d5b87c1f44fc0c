"""What workers are sent, and how they end. That they play and learn as one process does: test_train.py."""

from __future__ import annotations

import time
from multiprocessing import get_context

import pytest

from rlinf_isaac.engines.local.rl import workers
from rlinf_isaac.engines.local.rl.train import load_actor_critic
from rlinf_isaac.engines.local.rl.update import make_optimiser
from rlinf_isaac.engines.local.rl.workers import RolloutWorkers


@pytest.mark.parametrize("exploration", ["flow_sde", "flow_noise"])
def test_only_what_trains_is_sent_with_every_piece_of_work(make_job, exploration):
    policy = load_actor_critic(make_job(f"rl.exploration={exploration}"))
    sent, kept = (workers._weights(policy, trained=trained) for trained in (True, False))
    groups = make_optimiser(policy).param_groups
    assert sum(array.size for array in sent.values()) == sum(
        each.numel() for group in groups for each in group["params"]
    )
    assert not any(name.startswith("paligemma_with_expert.paligemma") for name in sent)
    assert sent.keys() | kept.keys() == policy.checkpoint_module().state_dict().keys()


def test_an_error_ends_the_workers_and_no_other_process(make_job):
    job = make_job("rl.workers=2", "rl.num_envs=2")
    policy = load_actor_critic(job)
    other = get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    players = RolloutWorkers(job.config, job.start.norm_stats_bytes, policy)

    def fail() -> None:
        with players:
            assert [each.seed for each in players.evaluate([3, 1])] == [1, 3]
            assert len(players.processes.started) == 2
            raise RuntimeError("on purpose")

    try:
        with pytest.raises(RuntimeError, match="on purpose"):
            fail()
        assert [worker.is_alive() for worker in players.processes.started] == [False, False]
        assert other.is_alive()
    finally:
        other.kill()
        other.join()
