"""The division of a GPU's memory, of which this machine needs to have none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlinf_isaac.config import load_config
from rlinf_isaac.engines.local.rl.memory import (
    GIB,
    free_memory,
    most_rows,
    piece_bytes,
    plan_on_cpu,
    plan_on_gpu,
    prefix_bytes,
    prefix_tokens,
)
from rlinf_isaac.ground.errors import InvalidJob

TOKENS = 2 * 256 + 48


def full_size(*overrides: str):
    return load_config("pi0", ["rl.num_envs=64", "rl.episodes=64", "rl.minibatch=256", *overrides])


def test_sizes_are_those_that_were_measured():
    """On one H200: 9.8 MiB per prefix; minibatches of 32 and 256 rows took 9 and 25 GiB, 73 MiB per row."""
    config = full_size()
    assert prefix_tokens(config, 48) == TOKENS
    assert prefix_bytes(config, TOKENS) / 2**20 == pytest.approx(9.8, abs=0.1)
    assert piece_bytes(config, TOKENS) / 2**20 == pytest.approx(73, rel=0.2)
    assert most_rows(config, 1) == 64 * 45


def test_prefixes_lie_on_the_gpu_as_far_as_there_is_room():
    config = full_size()
    whole = plan_on_gpu(config, TOKENS, 130 * GIB, 100 * GIB)
    assert (whole.keeps_prefix, whole.near, whole.rows) == (True, 2880, 2880)
    part = plan_on_gpu(config, TOKENS, 50 * GIB, 100 * GIB)
    assert 0 < part.near < part.rows
    images = plan_on_gpu(config, TOKENS, 35 * GIB, 5 * GIB)
    assert (images.keeps_prefix, images.near) == (False, 0)
    host = plan_on_gpu(full_size("rl.prefix_memory=host"), TOKENS, 130 * GIB, 100 * GIB)
    assert (host.keeps_prefix, host.near) == (True, 0)
    some = plan_on_gpu(full_size("rl.prefix_memory=10"), TOKENS, 130 * GIB, 100 * GIB)
    assert some.near == 10 * GIB // prefix_bytes(config, TOKENS)


@pytest.mark.parametrize(
    ("overrides", "free", "host"),
    [(["rl.prefix_memory=gpu"], 40, 100), (["rl.prefix_memory=host"], 130, 10), (["rl.prefix_memory=100"], 60, 100)],
)
def test_what_has_no_room_is_refused_before_the_start(overrides, free, host):
    with pytest.raises(InvalidJob, match=r"2880 action chunks take 27\.\d GiB"):
        plan_on_gpu(full_size(*overrides), TOKENS, free * GIB, host * GIB)


def test_a_gpu_without_room_for_the_update_is_refused():
    with pytest.raises(InvalidJob, match="GiB left"):
        plan_on_gpu(full_size(), TOKENS, 5 * GIB, 100 * GIB)


def test_pieces_of_a_minibatch_are_equal_and_as_large_as_fits():
    config = full_size("rl.minibatch=300", "rl.noise_steps=0")
    plan = plan_on_gpu(config, TOKENS, 100 * GIB, 100 * GIB)
    assert plan.piece * piece_bytes(config, TOKENS) < 50 * GIB
    assert 300 <= plan.piece * -(-300 // plan.piece) < 300 + plan.piece
    assert plan_on_gpu(full_size("rl.micro_batch=100"), TOKENS, 130 * GIB, 0).piece == 86


def test_on_a_cpu_prefixes_are_kept_where_half_of_the_memory_has_room_and_passes_are_as_in_the_rollout():
    config = load_config("tiny")
    plan = plan_on_cpu(config, 100, 10 * GIB)
    assert (plan.keeps_prefix, plan.rows, plan.near, plan.piece) == (True, 3840, 3840, 32)
    assert not plan_on_cpu(config, 100, GIB // 10).keeps_prefix
    always = replace(config, rl=replace(config.rl, prefix_memory="host"))
    assert plan_on_cpu(always, 100, GIB // 10).keeps_prefix
    for change in ({"prefix_memory": "none"}, {"trainable": "all"}):
        assert not plan_on_cpu(replace(config, rl=replace(config.rl, **change)), 100, 10 * GIB).keeps_prefix


def test_this_machine_has_memory():
    assert free_memory() > 0
