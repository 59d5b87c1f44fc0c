"""Which config keys each verb reads. An override of any other key would do nothing, so it is refused.

A verb *reads* a key if its value decides what the verb does, what it refuses, or what it leaves behind. That settles
the doubtful cases:

- The values of a preset are no overrides. A preset speaks to all verbs at once, each takes what it reads, and none
  complains about the rest. Who wants one set of values for many commands writes a preset of their own.
- `sft`, `bundle make` and `convert` leave a checkpoint behind that says what the policy is (`model`, `policy`) and
  what it is for (`env`); the later verbs, `serve` among them, take it from there. So they read those sections whole,
  although no step of a fine-tuning depends on ``policy.denoise_steps``. The sections of other verbs are carried along
  in the same file, as a preset's values are, and an override of them is for those verbs: ``eval.episodes`` is `eval`'s.
- A key that cannot act because of another one's value (``rl.group_size`` of PPO, ``compute.compile`` on a CPU) is
  refused like one that is never read: who sets it expects something of it, and would get nothing. A preset may hold it.
- What is read, but belongs to the weights (the architecture, for `eval`), is refused as ``not-overridable``.

A form of a verb whose options change what it reads has its own row, named as it is typed: ``sft --engine rlinf``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from rlinf_isaac.config import keys_of, known_keys
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.tasks.variation import AXES, axes_in


@dataclass(frozen=True)
class Condition:
    """When a key acts, in words that end the sentence "VERB reads KEY only with ...", and as a test of the config."""

    words: str
    holds: Callable[[JobConfig], bool]


ALWAYS = Condition("", lambda config: True)
ISAACLAB = Condition("env.backend=isaaclab", lambda config: config.env.backend == "isaaclab")
CUDA = Condition("compute.device=cuda", lambda config: config.compute.device.startswith("cuda"))
CPU = Condition("compute.device=cpu", lambda config: not config.compute.device.startswith("cuda"))
SEVERAL = Condition("compute.num_processes above 1", lambda config: config.compute.num_processes > 1)
BFLOAT16 = Condition("compute.dtype=bfloat16", lambda config: config.compute.dtype == "bfloat16")
VISION_CHOICE = Condition("sft.trainable=all or lora", lambda config: config.sft.trainable != "expert")
LORA = Condition("sft.trainable=lora", lambda config: config.sft.trainable == "lora")
AVERAGED = Condition("sft.ema_decay above 0", lambda config: config.sft.ema_decay > 0)
FILMED = Condition("eval.videos above 0", lambda config: config.eval.videos > 0)
PPO = Condition("rl.algorithm=ppo", lambda config: config.rl.algorithm == "ppo")
GRPO = Condition("rl.algorithm=grpo", lambda config: config.rl.algorithm == "grpo")
FLOW_SDE = Condition("rl.exploration=flow_sde", lambda config: config.rl.exploration == "flow_sde")
FLOW_NOISE = Condition("rl.exploration=flow_noise", lambda config: config.rl.exploration == "flow_noise")
SHAPED = Condition("rl.reward=shaped", lambda config: config.rl.reward == "shaped")
VALIDATED = Condition("sft.val_episodes above 0", lambda config: config.sft.val_episodes > 0)
PLAYED = Condition("sft.eval_interval above 0", lambda config: config.sft.eval_interval > 0)
NOT_ISAACLAB = Condition("an env.backend that is not isaaclab", lambda config: config.env.backend != "isaaclab")
SIMULATED = Condition(
    "sft.eval_interval above 0 and an env.backend that is not isaaclab",
    lambda config: config.sft.eval_interval > 0 and config.env.backend != "isaaclab",
)
RL_VISION = Condition("rl.trainable=lora or all", lambda config: config.rl.trainable != "expert")
RL_LORA = Condition("rl.trainable=lora", lambda config: config.rl.trainable == "lora")
RL_EXPERT = Condition("rl.trainable=expert", lambda config: config.rl.trainable == "expert")
HELD_OUT = Condition("rl.eval_interval above 0", lambda config: config.rl.eval_interval > 0)
GUARDED = Condition("rl.guard=true", lambda config: config.rl.guard)
AIMED = Condition("rl.target_success above 0", lambda config: config.rl.target_success > 0)


def _varies(axis: str) -> Condition:
    return Condition(f"vary.axes naming {axis}", lambda config: axis in axes_in(config.vary.axes))


@dataclass(frozen=True)
class Form:
    """What a form of a verb reads.

    Attributes:
        free: key -> when it acts; an override may set it.
        fixed: key -> why an override may not set it.
    """

    free: Mapping[str, Condition]
    fixed: Mapping[str, str]


def _form(
    *sections: str,
    only: Mapping[str, Condition] | None = None,
    unread: Iterable[str] = (),
    fixed: Mapping[str, str] | None = None,
) -> Form:
    """Keys, and sections (which end with a dot), that always act; those that act `only` sometimes; those of the
    sections that are not read after all; and those that are `fixed`."""
    free = dict.fromkeys(_expand(sections), ALWAYS) | dict(only or {})
    reasons = {key: reason for name, reason in (fixed or {}).items() for key in _expand([name])}
    return Form({key: when for key, when in free.items() if key not in {*_expand(unread), *reasons}}, reasons)


def _expand(names: Iterable[str]) -> list[str]:
    return [key for name in names for key in known_keys() if key == name or (name[-1] == "." and key.startswith(name))]


_TRAINED = "would change what the checkpoint was trained with"
_PLAYED = dict.fromkeys(("preset", "model.", "policy.norm", "policy.delta_actions", "policy.env_action_dim"), _TRAINED)
_GUARD = tuple(f"rl.{name}" for name in ("guard_kl", "guard_clip_fraction", "max_rollbacks", "rollback_lr_factor"))
_OF_RL = {
    "eval.video_size": FILMED,
    "rl.gamma": PPO,
    "rl.gae_lambda": PPO,
    "rl.group_size": GRPO,
    "rl.noise_level": FLOW_SDE,
    "rl.noise_steps": FLOW_SDE,
    "rl.noise_min": FLOW_NOISE,
    "rl.noise_max": FLOW_NOISE,
    "rl.subtask_reward": SHAPED,
    "rl.eval_episodes": HELD_OUT,
    "rl.eval_first_seed": HELD_OUT,
    "rl.stop_at_target": AIMED,
    **dict.fromkeys(_GUARD, GUARDED),
}
_OF_LOCAL_RL = {
    "rl.train_vision": RL_VISION,
    **dict.fromkeys((f"rl.lora.{part}_{size}" for part in ("vlm", "expert") for size in ("rank", "alpha")), RL_LORA),
    "rl.prefix_memory": RL_EXPERT,
    "rl.micro_batch": CUDA,
    "rl.rescore": CUDA,
    "rl.workers": CPU,
}
_RL_SECTIONS = ("rl.", "eval.", "env.", "policy.denoise_steps", "compute.threads")
_RL_FIXED = _PLAYED | {
    **dict.fromkeys(("policy.state_layout", "policy.tokenizer", "policy.action_chunk"), _TRAINED),
}
_CHECKPOINT = ("preset", "model.", "policy.", "env.")
_SFT_SECTIONS = (*_CHECKPOINT, "norm_stats.", "sft.", "compute.threads", "compute.dtype", "compute.num_processes")
_EVAL_SECTIONS = (
    *("eval.", "env.", "compute.threads", "compute.dtype"),
    *(f"policy.{name}" for name in ("action_chunk", "denoise_steps", "state_layout", "tokenizer")),
)
_NORM_STATS = ("env.task", "policy.state_layout")
_ROWS = ("model.action_horizon", "policy.delta_actions", "norm_stats.batch_size")
_DEMOS = _form("demos.", "env.", "policy.state_layout", only={"compute.device": ISAACLAB})
_OF_A_BASE = ("sft.fresh",)
_WATCHED = {
    **dict.fromkeys(("sft.val_frames", "sft.val_interval"), VALIDATED),
    **dict.fromkeys(("sft.eval_episodes", "sft.eval_first_seed", "compute.lanes"), PLAYED),
    "compute.env_processes": SIMULATED,
}
_OF_SFT = {
    "sft.train_vision": VISION_CHOICE,
    **dict.fromkeys((f"sft.lora.{part}_{size}" for part in ("vlm", "expert") for size in ("rank", "alpha")), LORA),
    "sft.evaluate_raw": AVERAGED,
}
# RLinf's runner measures nothing but its loss, and writes checkpoints of its own, all of which stay.
_LOCAL = ("sft.keep", "sft.val_episodes", "sft.eval_interval", "sft.loader_workers", "sft.mix", *_WATCHED)
_OF_COMPUTE = {"compute.master_weights": BFLOAT16, "compute.compile": CUDA, "compute.sharding": SEVERAL}
_SFT_ONLY = _OF_COMPUTE | _WATCHED | _OF_SFT
_SFT_BASE = _form(*_SFT_SECTIONS, "compute.device", only=_SFT_ONLY)
_SFT = _form(*_SFT_SECTIONS, "compute.device", only=_SFT_ONLY, unread=_OF_A_BASE)
_SPREAD = {"compute.lanes": ALWAYS, "compute.env_processes": NOT_ISAACLAB}
_EVAL = _form(
    *(*_EVAL_SECTIONS, "compute.device"),
    only={"eval.video_size": FILMED, "compute.compile": CUDA, **_SPREAD},
    fixed=_PLAYED,
)
_VARIED = {"vary.axes": ALWAYS, **{f"vary.{axis}": _varies(axis) for axis in AXES}}
_RL = _form(
    *_RL_SECTIONS,
    *("compute.device", "compute.dtype", "compute.num_processes"),
    only=_OF_RL | _OF_LOCAL_RL | {"compute.compile": CUDA, "compute.master_weights": BFLOAT16} | _SPREAD,
    fixed=_RL_FIXED,
)
# What becomes of foreign weights is for others to do: how and where they run is theirs to take from the checkpoint.
_BUNDLE = _form(*_CHECKPOINT, *(f"compute.{name}" for name in ("device", "threads", "dtype", "compile")))


# On its own demonstrations alone.
_SFT_OF_MAIN = Form({key: when for key, when in _SFT.free.items() if key != "sft.mix"}, {})


def _union(*forms: Form) -> Form:
    """What one of these reads. Where all have conditions, any of them will do."""
    free: dict[str, Condition] = {}
    for form in forms:
        for key, when in form.free.items():
            free[key] = _either(free[key], when) if key in free else when
    return Form(free, {})


def _either(one: Condition, other: Condition) -> Condition:
    if one == other or one is ALWAYS:
        return one
    if other is ALWAYS:
        return other
    return Condition(f"{one.words} or {other.words}", lambda config: one.holds(config) or other.holds(config))


FORMS: Mapping[str, Form] = {
    "main": _union(_DEMOS, _SFT_OF_MAIN, _EVAL, _RL),
    "main --rl-iterations 0": _union(_DEMOS, _SFT_OF_MAIN, _EVAL),
    "demos": _DEMOS,
    "norm_stats": _form(*_NORM_STATS, *_ROWS),
    "norm_stats --check": _form(*_NORM_STATS, "policy.norm", "model.pi05"),
    "norm_stats --check --dataset": _form(*_NORM_STATS, *_ROWS, "policy.norm", "model.pi05"),
    "norm_stats --canonicalise": _form(),
    "sft": _SFT,
    "sft --base": _SFT_BASE,
    # RLinf trains float32 parameters where its cluster has devices; another dtype or number of processes is refused.
    # Each of its workers loads its own rows, itself.
    "sft --engine rlinf": _form(*_SFT_SECTIONS, only=_OF_SFT, unread=(*_OF_A_BASE, *_LOCAL)),
    "sft --engine rlinf --base": _form(*_SFT_SECTIONS, only=_OF_SFT, unread=_LOCAL),
    "eval": Form({**_EVAL.free, **_VARIED}, _EVAL.fixed),
    # Of RLinf's cluster, only the simulator asks where it shall run.
    "eval --engine rlinf": _form(
        *_EVAL_SECTIONS, only={"eval.video_size": FILMED, "compute.device": ISAACLAB}, fixed=_PLAYED
    ),
    "rl": _RL,
    # GRPO is refused there, so nothing has groups; RLinf's cluster says how many workers there are.
    "rl --engine rlinf": _form(
        *_RL_SECTIONS,
        only=_OF_RL | {"compute.device": ISAACLAB},
        # Its runner has the loop: nothing can go back there, or end it early.
        unread=(
            *("rl.workers", "rl.group_size", "rl.trainable", *_OF_LOCAL_RL),
            *("rl.keep", "rl.guard", *_GUARD, "rl.target_success", "rl.stop_at_target"),
        ),
        fixed=_RL_FIXED
        | {
            "compute.dtype": "would not do what it says: RLinf's workers train rl in float32",
            "compute.num_processes": "would not do what it says: RLinf's cluster says how many workers there are",
        },
    ),
    "bundle make": _BUNDLE,
    "bundle verify": _form(),
    "bundle show": _form(),
    "convert": _form(),
    "convert --preset": _BUNDLE,
    "serve": _form("compute.device", fixed=_PLAYED),
}
"""As it is typed -> what is read."""


def on_engine(verb: str, engine: str) -> str:
    """The form of a verb that has an option ``--engine``."""
    return verb if engine == "local" else f"{verb} --engine {engine}"


def with_base(form: str, base: bool) -> str:
    """The form of `sft` that starts from a base, or the one that does not."""
    return f"{form} --base" if base else form


def acts(form: str, key: str, config: JobConfig) -> bool:
    """Whether a key decides anything in a job of this form and config, be it free or fixed."""
    read = FORMS[form]
    return key in read.fixed or (key in read.free and read.free[key].holds(config))


def readers(key: str) -> list[str]:
    """What an override of a key may be given to: one form of each verb, the plainest that reads it."""
    found: dict[str, str] = {}
    for form in (form for form, read in FORMS.items() if key in read.free):
        found.setdefault(form.partition(" --")[0], form)
    return list(found.values())


def check_overrides(form: str, overrides: Iterable[str], config: JobConfig | None = None) -> list[Problem]:
    """Overrides of existing keys that would do nothing, or something they must not.

    Args:
        form: as it is typed, a key of `FORMS`.
        overrides: ``section.key=value`` items, those that options stand for among them.
        config: what came of them; without it, keys that act only sometimes pass.
    """
    problems = []
    for item in overrides:
        for key in keys_of(item):
            problems += _check(form, item, key, config)
    return problems


def _check(form: str, item: str, key: str, config: JobConfig | None) -> list[Problem]:
    read = FORMS[form]
    if key in read.fixed:
        return [Problem("not-overridable", f"{item} {read.fixed[key]}", "leave it out")]
    if key in known_keys() and key not in read.free:
        cure = f"leave it out here; these read it: {', '.join(readers(key))}"
        return [Problem("not-read", f"{item}: {form} reads no {key}", cure)]
    if config is not None and key in read.free and not read.free[key].holds(config):
        words = read.free[key].words
        return [Problem("not-read", f"{item}: {form} reads {key} only with {words}", f"leave it out, or set {words}")]
    return []
