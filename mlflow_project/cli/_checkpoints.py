"""What the verbs that start from checkpoints (eval, rl) share: choosing them, and what may be changed of their job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlinf_isaac.config import flatten
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.errors import Problem

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings


def chosen_bundles(findings: Findings, ckpt_root: str, ckpt_steps: str, *, quick: bool) -> list[Bundle]:
    """The checkpoints that ``--ckpt-root`` and ``--ckpt-steps`` mean; `quick` hashes no weights."""
    from rlinf_isaac.checkpoint.bundle import parse_steps, read_bundle, select_bundles

    bundles = []
    with findings.collect():
        for path in select_bundles(ckpt_root, parse_steps(ckpt_steps)):
            with findings.collect():
                bundles.append(read_bundle(path, verify=not quick))
    return bundles


def check_overrides(overrides: Iterable[str], allowed: tuple[str, ...]) -> list[Problem]:
    """Overrides of existing keys that begin with none of `allowed`: they would make it another policy."""
    return [
        Problem("not-overridable", f"{item} would change what the checkpoint was trained with", "leave it out")
        for item in overrides
        if "=" in item and not item.startswith(allowed) and item.partition("=")[0] in flatten(JobConfig())
    ]


def recorded(config: JobConfig, *own: str) -> dict[str, Any]:
    """The sections of the config that a run logs as params: what concerns an evaluation, and the verb's `own`."""
    values = asdict(config)
    return {section: values[section] for section in ("preset", "model", "policy", "env", *own, "eval", "compute")}
