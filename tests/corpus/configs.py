"""Presets with one fault. `break_it` edits a copy of the preset ``tiny`` as a YAML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from corpus.case import Case

from rlinf_isaac.config import PRESETS


def make_valid(path: Path) -> None:
    """Write the valid twin: a copy of ``tiny``."""
    path.write_text((PRESETS / "tiny.yaml").read_text())


def _set(key: str, value: Any) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        values = yaml.safe_load(path.read_text())
        section = values
        *parents, name = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = value
        path.write_text(yaml.safe_dump(values))

    return edit


def _set_all(values: dict[str, Any]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        for key, value in values.items():
            _set(key, value)(path)

    return edit


def _remove(key: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        values = yaml.safe_load(path.read_text())
        section, name = key.split(".")
        del values[section][name]
        path.write_text(yaml.safe_dump(values))

    return edit


def _write(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


def _append(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(path.read_text() + text) and None


CASES = [
    Case("no such preset", "unknown-preset", lambda path: path.unlink()),
    Case("not YAML", "bad-preset", _write("{{{:::")),
    Case("a list", "bad-preset", _write("- model\n- policy\n")),
    Case("bytes that are no text", "bad-preset", lambda path: path.write_bytes(b"\xff\xfe\x00") and None),
    Case("a section twice", "bad-preset", _append("\nsft: {steps: 5, save_interval: 5}\n")),
    Case("an object to construct", "bad-preset", _append("\nx: !!python/object/apply:os.system ['true']\n")),
    Case("empty", "missing-value", _write("")),
    Case("misspelt key", "unknown-key", _set("sft.learning_rate", 1e-3)),
    Case("misspelt section", "unknown-key", _set("training.steps", 5)),
    Case("no action horizon", "missing-value", _remove("model.action_horizon")),
    Case("a word for a number", "bad-value", _set("sft.steps", "many")),
    Case("NaN", "bad-value", _set("sft.lr", float("nan"))),
    Case("negative", "bad-value", _set("sft.batch_size", -1)),
    Case("unknown task", "unknown-task", _set("env.task", "stack4")),
    Case("unknown state layout", "bad-value", _set("policy.state_layout", "pixels")),
    Case("odd video size", "bad-value", _set("eval.video_size", 255)),
    Case("an environment variable", "interpolation", _set("policy.asset_id", "${oc.env:HOME}")),
    Case("episode no multiple of the chunk", "steps-chunk", _set("env.max_episode_steps", 250)),
    Case("chunk beyond the horizon", "chunk-horizon", _set("policy.action_chunk", 20)),
    Case("state too large for the model", "state-dim", _set("model.action_dim", 16)),
    Case("expert of another depth", "expert-shape", _set("model.expert.depth", 3)),
    Case("patches that do not tile", "patch-size", _set("model.vision.patch_size", 15)),
    Case("a delta mask beyond the action", "bad-delta-mask", _set("policy.delta_actions", "9")),
    Case("a decay that ends in the warm-up", "decay-warmup", _set("sft.decay_steps", 50)),
    Case("unknown choice of what trains", "bad-value", _set("sft.trainable", "head")),
    Case("adapters without a rank", "bad-value", _set("sft.lora.vlm_rank", 0)),
    Case("an average that never moves", "bad-value", _set("sft.ema_decay", 1.0)),
    Case("adapters of a random model", "frozen-random", _set("sft.trainable", "lora")),
    Case(
        "half of an odd number of environments",
        "lanes",
        _set_all({"compute": {"lanes": 2}, "sft.eval_interval": 400, "sft.eval_episodes": 5}),
    ),
    Case("three lanes", "bad-value", _set("compute", {"lanes": 3})),
    Case("no tokenizer file", "no-tokenizer", _set("policy.tokenizer", "nowhere.model")),
]

RL_CASES = [
    Case("no such preset", "unknown-preset", lambda path: path.unlink()),
    Case("misspelt key", "unknown-key", _set("rl.learning_rate", 1e-4)),
    Case("a word for a number", "bad-value", _set("rl.iterations", "many")),
    Case("NaN", "bad-value", _set("rl.lr", float("nan"))),
    Case("unknown algorithm", "bad-value", _set("rl.algorithm", "sac")),
    Case("unknown exploration", "bad-value", _set("rl.exploration", "ode")),
    Case("unknown reward", "bad-value", _set("rl.reward", "dense")),
    Case("a second clip inside the first", "bad-value", _set("rl.dual_clip", 0.5)),
    Case("a value head without units", "bad-value", _set("rl.value_widths", [64, 0])),
    Case("no processes", "bad-value", _set("rl.workers", 0)),
    Case("workers that do not divide the environments", "rl-workers", _set("rl.workers", 3)),
    Case("groups that do not divide the episodes", "rl-groups", _set("rl", {"algorithm": "grpo", "group_size": 5})),
    Case("more noisy steps than there are", "rl-noise", _set("rl.noise_steps", 3)),
    Case("prefixes on a GPU that there is not", "rl-prefix-memory", _set("rl.prefix_memory", "gpu")),
    Case("prefixes somewhere", "bad-value", _set("rl.prefix_memory", "elsewhere")),
    Case("bounds of the noise upside down", "rl-noise", _set("rl", {"exploration": "flow_noise", "noise_min": 0.2})),
    Case(
        "an end at a target that nothing measures",
        "rl-target",
        _set("rl", {"target_success": 0.8, "stop_at_target": True, "eval_interval": 0}),
    ),
    Case("training on the seeds of the evaluation", "rl-seeds", _set("rl.first_seed", 5004)),
    Case("training up into the seeds of the evaluation", "rl-seeds", _set("rl.first_seed", 4990)),
    Case("training on the seeds of the demonstrations", "rl-seeds", _set("rl.first_seed", 1001)),
    Case("held-out seeds among those that train", "rl-seeds", _set("rl.eval_first_seed", 1_000_010)),
]
"""Faults of the section ``rl``, as `rl` meets them: with the rest of the config from a checkpoint of two denoising
steps, demonstrations from seed 1000 and an evaluation on the seeds 5000 to 5004."""
