"""Checks the checkpoint that a policy server serves, and plans its job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlinf_isaac.config import build_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.jobs import checkpoints, options

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings


def plan(
    findings: Findings, bundle: Bundle, device: str, assume: str = options.NONE, task: str = options.AUTO
) -> tuple[Bundle, JobConfig] | None:
    """The bundle with the assumptions about its training, and its job on this device; None if `findings` has errors.

    `task` is that of a checkpoint of several; ``auto`` is enough where these share their norm stats.

    Raises:
        InvalidJob: the bundle's config does not belong to this release, or a value does not fit.
    """
    from rlinf_isaac.checkpoint.coverage import check_coverage
    from rlinf_isaac.checkpoint.of_task import playable
    from rlinf_isaac.checkpoint.trained_with import serving_mismatches
    from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
    from rlinf_isaac.preflight import check_bundles, check_config, check_device, check_norm_stats

    changes = options.to_overrides({"device": device}, {"device": "compute.device"}, options.NONE)
    findings.add(check_bundles([bundle]))
    (bundle,) = checkpoints.with_assumptions(findings, [bundle], assume)
    bundle = playable(bundle, None if task == options.AUTO else task)
    config = build_config(bundle.job, f"{bundle.path}/config.json", changes)
    findings.add([*check_config(config), *check_device(config)])
    findings.raise_errors()
    findings.add(check_coverage(bundle.path, config.model, optional=OPTIONAL_PREFIXES))
    findings.add(serving_mismatches(bundle, config))
    findings.add(check_norm_stats(bundle.norm_stats_bytes, bundle.path, config))
    return None if findings.errors else (bundle, config)
