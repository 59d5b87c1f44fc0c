"""What a verb says of its job before it works: device, parameters, dataset, settings, where the results go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.base import EvaluationJob, RlJob, SftJob
from rlinf_isaac.engines.local.rl.memory import as_fine_tuning
from rlinf_isaac.engines.local.sft.memory import parameter_counts
from rlinf_isaac.jobs.budget import budget_words


def sft_header(job: SftJob) -> dict[str, str]:
    """Of a fine-tuning."""
    sft = job.config.sft
    return {
        "preset": _preset(job.config),
        "device": _device(job.config, job.processes),
        "parameters": _parameters(job.config),
        "base": "random weights" if job.base is None else job.base.named.name,
        "dataset": _datasets(job.datasets),
        "schedule": f"{sft.steps} steps of {sft.batch_size} samples, lr {sft.lr:g}, "
        f"a checkpoint every {sft.save_interval} steps",
        "results": str(job.output.absolute()),
    }


def evaluation_header(job: EvaluationJob) -> dict[str, str]:
    """Of an evaluation."""
    config, rule = job.config, job.stop_rule
    first, count = config.eval.first_seed, config.eval.episodes
    episodes = f"{'at most ' if rule else ''}{count} each, seeds {first} to {first + count - 1}"
    return {
        "preset": _preset(config),
        "device": _device(config, 1),
        "checkpoints": _steps([bundle.step for bundle in job.bundles], job.bundles[0].path.parent),
        "episodes": f"{episodes}, {config.eval.num_envs} side by side",
        **({"can show": budget_words(count, len(job.bundles), rule.alpha)} if rule else {}),
        "simulator": f"{config.env.backend}, task {config.env.task}",
        **({"varied": ", ".join(f"{each.axis} {each.strength:g}" for each in job.vary)} if job.vary else {}),
        "results": str(job.output.absolute()),
    }


def rl_header(job: RlJob) -> dict[str, str]:
    """Of a reinforcement learning from one checkpoint."""
    rl = job.config.rl
    return {
        "preset": _preset(job.config),
        "device": _device(job.config, job.processes),
        "parameters": _parameters(as_fine_tuning(job.config)),
        "starts from": f"step {job.start.step} of {job.start.path.parent}",
        "schedule": f"{rl.iterations} iterations of {rl.episodes} episodes, {rl.algorithm}, lr {rl.lr:g}",
        "simulator": f"{job.config.env.backend}, task {job.config.env.task}",
        "results": str(job.output.absolute()),
    }


def demos_header(config: JobConfig, root: Path) -> dict[str, str]:
    """Of the recording of demonstrations."""
    return {
        "preset": _preset(config),
        "episodes": f"{config.demos.episodes} of the expert, by {config.demos.workers} processes",
        "simulator": f"{config.env.backend}, task {config.env.task}",
        "results": str(root.absolute()),
    }


def spell_count(number: int) -> str:
    """``1.27 M``, ``3.24 B``; small numbers as they are."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def _preset(config: JobConfig) -> str:
    return f"{Path(config.preset).stem} ({'pi0.5' if config.model.pi05 else 'pi0'}, {config.compute.dtype})"


def _device(config: JobConfig, processes: int) -> str:
    compute = config.compute
    text = compute.device
    if text == "cpu":
        text += f", {compute.threads} thread{'s' if compute.threads != 1 else ''}" if compute.threads else ""
    elif name := _gpu_name():
        text += f" ({name})"
    return f"{text} x {processes} processes" if processes > 1 else text


def _gpu_name() -> str:
    from rlinf_isaac.ground.probe import output_of

    names = (output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or b"").decode(errors="replace")
    return names.strip().partition("\n")[0].strip()


def _parameters(config: JobConfig) -> str:
    total, trained = parameter_counts(config)
    share = "all trained" if trained == total else f"{spell_count(trained)} trained ({100 * trained / total:.1f} %)"
    return f"{spell_count(total)}, {share}"


def _datasets(roots: Sequence[Path]) -> str:
    return "; ".join(_dataset(root) for root in roots)


def _dataset(root: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        info = json.loads((root / "meta/info.json").read_text(encoding="utf-8"))
        return f"{root.name}: {info['total_episodes']} episodes, {info['total_frames']} frames, {info['fps']:g} fps"
    return root.name


def _steps(steps: Sequence[int], root: Path) -> str:
    return f"{', '.join(map(str, steps))} of {root}"
