from __future__ import annotations

import shutil

from rlinf_isaac.config import load_config
from rlinf_isaac.preflight import check_device
from rlinf_isaac.preflight.machine import demonstration_bytes, reinforcement_bytes, training_bytes


def codes(problems):
    return [problem.code for problem in problems]


def test_cuda_without_a_driver(monkeypatch):
    config = load_config("tiny", ["compute.device=cuda:0"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("pathlib.Path.exists", lambda self: False)
    assert codes(check_device(config)) == ["no-gpu"]
    assert check_device(load_config("tiny")) == []


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr("pathlib.Path.exists", lambda self: True)
    monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: iter(["0000:0f:00.0", "0000:1f:00.0"]))
    for count, expected in ((1, []), (2, []), (4, ["few-gpus"])):
        config = load_config("tiny", ["compute.device=cuda", f"compute.num_processes={count}"])
        assert codes(check_device(config)) == expected


def test_room_is_that_of_every_checkpoint_and_the_optimiser():
    config = load_config("tiny")  # 0.67 M parameters, 3 checkpoints
    assert 4 * 6 * 0.6e6 < training_bytes(config) < 4 * 6 * 0.8e6
    assert training_bytes(load_config("pi0")) > 100e9
    assert 0 < demonstration_bytes(config) < 1e9
    config.rl.iterations, config.rl.save_interval = 5, 2  # as many checkpoints
    assert reinforcement_bytes(config) == training_bytes(config)
