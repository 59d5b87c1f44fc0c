from __future__ import annotations

import shutil

from rlinf_isaac.config import load_config
from rlinf_isaac.preflight import check_device, check_memory, check_rl_memory
from rlinf_isaac.preflight.machine import check_shared_memory, demonstration_bytes, reinforcement_bytes, training_bytes


def codes(problems):
    return [problem.code for problem in problems]


def test_cuda_without_a_driver(monkeypatch):
    config = load_config("tiny", ["compute.device=cuda:0"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("pathlib.Path.exists", lambda self: False)
    assert codes(check_device(config)) == ["no-gpu"]
    assert check_device(config, "demos") == check_device(config, "eval --engine rlinf") == []
    assert check_device(load_config("tiny")) == []


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr("pathlib.Path.exists", lambda self: True)
    monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: iter(["0000:0f:00.0", "0000:1f:00.0"]))
    for count, expected in ((1, []), (2, []), (4, ["few-gpus"])):
        config = load_config("tiny", ["compute.device=cuda", f"compute.num_processes={count}"])
        assert codes(check_device(config)) == expected
        assert check_device(config, "eval") == [], "it takes one, whatever the training took"


def _say(directory, text):
    (directory / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{text}'\n")
    (directory / "nvidia-smi").chmod(0o755)


def test_more_memory_than_the_smallest_gpu_has(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = load_config("pi0")
    for text, expected in (("143771\\n143771\\n", []), ("143771\\n24564\\n", ["gpu-memory"]), ("[N/A]\\n", [])):
        _say(tmp_path, text)
        found = check_memory(config)
        assert codes(found) == expected
        assert {problem.level for problem in found} <= {"warning"}
        assert "gpu-memory" not in codes(check_memory(load_config("pi0", ["compute.device=cpu"])))
        assert check_memory(config, "sft --engine rlinf") == []


def test_an_update_that_the_smallest_gpu_cannot_hold(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    _say(tmp_path, "24564\\n")
    config = load_config("pi0", ["rl.num_envs=64", "rl.prefix_memory=gpu"])
    (problem,) = check_rl_memory(config)
    assert (problem.code, problem.level) == ("rl-memory", "warning")
    assert check_rl_memory(load_config("pi0", ["compute.device=cpu"])) == []
    assert check_rl_memory(config, "rl --engine rlinf") == []
    _say(tmp_path, "143771\\n")
    assert check_rl_memory(config) == []


def test_several_processes_share_prefixes_but_not_what_trains(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    _say(tmp_path, "143771\\n")
    many = ["rl.num_envs=64", "rl.episodes=512", "rl.prefix_memory=gpu"]
    assert codes(check_rl_memory(load_config("pi0", many))) == ["rl-memory"]
    assert check_rl_memory(load_config("pi0", [*many, "compute.num_processes=8"])) == []
    everything = ["rl.trainable=all", "rl.num_envs=64", "compute.num_processes=8"]
    assert check_rl_memory(load_config("pi0", [*everything, "rl.micro_batch=8"])) == []
    _say(tmp_path, "49140\\n")
    assert codes(check_rl_memory(load_config("pi0", [*everything, "rl.micro_batch=1"]))) == ["rl-memory"]
    check_rl_memory(load_config("pi0", ["rl.minibatch=4", "compute.num_processes=8"]))  # refused by another check


def test_what_is_advised_fits_and_can_be_typed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    _say(tmp_path, "24564\\n")
    (problem,) = check_memory(load_config("pi0", ["sft.batch_size=16"]))
    last = problem.cure.rsplit(", ", 1)[1].split()[0]
    advised = load_config("pi0", ["sft.batch_size=16", *last.split(",")])
    assert (advised.sft.trainable, advised.sft.activation_checkpointing, advised.sft.micro_batch) == ("lora", True, 8)
    assert check_memory(advised) == []


def test_room_is_that_of_every_checkpoint_and_the_optimiser():
    config = load_config("tiny")  # 0.67 M parameters, 3 checkpoints
    assert 4 * 6 * 0.6e6 < training_bytes(config) < 4 * 6 * 0.8e6
    assert training_bytes(load_config("pi0")) > 100e9
    assert training_bytes(load_config("tiny", ["sft.ema_decay=0.9"])) == training_bytes(config) * 7 / 6
    averaged = load_config("tiny", ["sft.ema_decay=0.9", "sft.evaluate_raw=true"])
    assert training_bytes(averaged) == training_bytes(config) * 10 / 6
    assert 0 < demonstration_bytes(config) < 1e9
    config.rl.iterations, config.rl.save_interval = 5, 2  # as many checkpoints
    assert reinforcement_bytes(config) == training_bytes(config)


def test_shared_memory_for_batches(tmp_path):
    def problems(workers: int, size: int, form: str = "sft"):
        overrides = [f"sft.loader_workers={workers}", f"sft.batch_size={size}"]
        return check_shared_memory(load_config("pi0", overrides), form, tmp_path)

    free = shutil.disk_usage(tmp_path).free
    too_many = free // (3 * 2 * 3 * 224**2) + 1_000_000
    assert problems(1, 32) == problems(0, too_many) == []
    assert problems(1, too_many, "sft --engine rlinf") == []
    (problem,) = problems(1, too_many)
    assert problem.code == "shared-memory"
    assert "set sft.loader_workers=0" in problem.cure
    assert check_shared_memory(load_config("pi0", ["sft.loader_workers=1"]), "sft", tmp_path / "absent") == []
