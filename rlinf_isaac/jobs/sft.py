"""Checks the options of a supervised fine-tuning, and plans its job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlinf_isaac.config.reads import check_overrides, on_engine, with_base
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import configs_of, narrowed
from rlinf_isaac.config.task import with_prompts
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.jobs import Say, options, silent
from rlinf_isaac.jobs import base as bases
from rlinf_isaac.jobs import engine as engines
from rlinf_isaac.jobs import suite as suites
from rlinf_isaac.jobs.used_norm_stats import say_trained

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.foreign.base import FoundBase, Named
    from rlinf_isaac.preflight import Findings

KEYS = {
    "task": "env.task",
    "steps": "sft.steps",
    "save_interval": "sft.save_interval",
    "batch_size": "sft.batch_size",
    "lr": "sft.lr",
    "seed": "sft.seed",
    "device": "compute.device",
}


class Checked(NamedTuple):
    """Options that were checked.

    Attributes:
        config: their config.
        datasets: roots of the datasets.
        norm_stats: the norm stats that were given; None if they are computed.
        allowed: differences between dataset and task that ``--allow-mismatch`` allows.
        base: the base, if there is one.
    """

    config: JobConfig
    datasets: tuple[Path, ...]
    norm_stats: Path | bases.ForeignNormStats | None
    allowed: tuple[Problem, ...]
    base: FoundBase | None = None


def check(
    findings: Findings,
    *,
    dataset: str,
    repo_id: str,
    norm_stats: str,
    base: str,
    preset: str,
    allow_mismatch: bool,
    output: Path,
    overrides: str,
    locate: Callable[[str], Named],
    quick: bool = False,
    **chosen: str,
) -> Checked | None:
    """Check these options.

    Args:
        findings: receives the problems.
        locate: finds the base that the option names, and raises InvalidJob if there is none.
        quick: a large dataset that was never hashed before is not hashed now either; a warning says so.

    Returns:
        The values that `plan` needs, or None if `findings` has errors.
    """
    from rlinf_isaac.preflight import (
        check_config,
        check_device,
        check_free_space,
        check_memory,
        check_shared_memory,
        check_simulator,
        check_trainable,
        check_training_data,
    )
    from rlinf_isaac.preflight.dataset import allowed, check_held_out
    from rlinf_isaac.preflight.machine import training_bytes
    from rlinf_isaac.preflight.mixture import check_mixture

    config = None
    roots: tuple[Path, ...] = ()
    form = with_base(on_engine("sft", chosen["engine"]), base != options.NONE)
    changes = [*options.to_overrides(chosen, KEYS, overrides), *options.of_torchrun()]
    findings.add(check_overrides(form, changes))
    found_base, given = bases.find(findings, base, locate), None
    with findings.collect():
        if found_base is not None or base == options.NONE:
            config = narrowed(bases.config_of(found_base, preset, changes))
            findings.add([*check_config(config, form, changes), *check_device(config, form)])
            findings.add(check_shared_memory(config, form))
    with findings.collect():
        roots = options.find_datasets(dataset, repo_id)
    with findings.collect():
        if found_base is not None or base == options.NONE:
            given = bases.choose_norm_stats(norm_stats, found_base)
    if config is not None and config.suite:
        findings.add(suites.check_suite(config, norm_stats=norm_stats, engine=chosen["engine"]))
        with findings.collect():
            roots = suites.matched(config, roots) if roots else ()
    if config is None or not roots or findings.errors:
        return None
    if found_base is not None:
        bases.check(findings, found_base, config)
    findings.add([*check_trainable(config, has_base=found_base is not None), *check_memory(config, form)])
    findings.add(check_free_space(output, training_bytes(config)))
    if config.sft.eval_interval:
        findings.add(check_simulator(config))
    file, found = given if isinstance(given, Path) else None, []
    configs = configs_of(config) if config.suite else (config,) * len(roots)
    for own, root in zip(configs, roots, strict=True):
        found += check_training_data(own, root, file if len(roots) == 1 else None, quick=quick, allow=allow_mismatch)
    findings.add(found)
    with findings.collect():
        findings.add([*check_mixture(config, roots, file), *check_held_out(config, roots)])
    if isinstance(given, bases.ForeignNormStats):
        bases.check_norm_stats(findings, given, config)
    engines.check_engine(findings, chosen, [SftJob(config, roots[0], "", b"", output, mixed_with=roots[1:])])
    return Checked(config, roots, given, tuple(allowed(found)), found_base)


def plan(
    config: JobConfig,
    dataset_root: Path,
    norm_stats: Path | bases.ForeignNormStats | None,
    output: Path,
    suffix: str = "",
    base: FoundBase | None = None,
    mixed_with: Sequence[Path] = (),
    say: Say = silent,
    env_python: str | None = None,
) -> SftJob:
    """The job of settings that were checked. The user is told which base and norm stats it has.

    `mixed_with` has the roots of further datasets. The name of the job's directory has a digest of everything that
    decides the result, and ends with `suffix`.

    Raises:
        DatasetError: a data file is damaged.
    """
    from rlinf_isaac.data.mixture import Mixture, open_datasets
    from rlinf_isaac.data.norm_stats import compute_norm_stats, settings_of
    from rlinf_isaac.engines.local.sft.memory import choose_sharding
    from rlinf_isaac.preflight.memory import gpu_memory

    dataset = open_datasets((dataset_root, *mixed_with), config.sft.mix)
    config = with_prompts(config, dataset.tasks.values())
    further: dict[str, bytes] = {}
    if config.suite:
        assert isinstance(dataset, Mixture)
        further = suites.norm_stats_of(config, dataset)
        stats = further.pop(config.policy.asset_id)
        origin = (
            f"computed from the dataset{'' if further else 's'} {dataset.datasets[0].root if further else dataset.root}"
        )
    elif norm_stats is None:
        stats = compute_norm_stats(dataset, **settings_of(config)).to_json().encode()
        origin = f"computed from the dataset {dataset.root}"
    elif isinstance(norm_stats, bases.ForeignNormStats):
        stats, origin = norm_stats.data, norm_stats.origin
    else:
        stats, origin = norm_stats.read_bytes(), f"given, {norm_stats}"
    sealed = None
    if base is not None:
        sealed = bases.seal(base, config, norm_stats if isinstance(norm_stats, bases.ForeignNormStats) else None, say)
    say_trained(stats, origin, say)
    for asset_id, data in further.items():
        say_trained(data, f"computed for {asset_id}", say)
    available = gpu_memory() if config.compute.device.startswith("cuda") else None
    processes, sharding = config.compute.num_processes, choose_sharding(config, available)
    config = replace(config, compute=replace(config.compute, num_processes=1, sharding="auto"))
    job = SftJob(
        config,
        dataset_root,
        dataset.digest,
        stats,
        output.absolute(),
        base=sealed,
        mixed_with=tuple(mixed_with),
        processes=processes,
        sharding=sharding,
        env_python=env_python,
        further_norm_stats=further,
    )
    return replace(job, output=job.output / "sft" / f"{config.preset}-{json_digest(job.lineage)[:8]}{suffix}")
