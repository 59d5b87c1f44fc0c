"""Checks the options of the job that makes a checkpoint bundle, and infers those that are left open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.config.reads import check_overrides
from rlinf_isaac.config.suite import single
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.jobs import Say, options, silent
from rlinf_isaac.jobs.bundle_source import (
    find_config,
    find_step,
    local_source,
    path_or_none,
    read_norm_stats,
    remarks,
    run_name,
    say_source,
    sliced_dims,
    with_asset_id,
)
from rlinf_isaac.preflight.findings import Findings

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.foreign.bundle_content import BundleContent
    from rlinf_isaac.checkpoint.foreign.sources import Source

# Facts that a dataset states. Names of its dims may be missing.
_OF_DATASET = ("prompt", "control_hz", "state", "actions")


@dataclass(frozen=True)
class MakeJob:
    """A bundle to make.

    Attributes:
        source: the checkpoint.
        content: everything that the bundle holds besides its weights.
        exclude: patterns of tensors to leave out.
        path: the bundle's directory.
        force: whether an existing bundle is replaced.
    """

    source: Source
    content: BundleContent
    exclude: tuple[str, ...]
    path: Path
    force: bool


def check(
    findings: Findings,
    *,
    source: Path,
    norm_stats: str,
    norm_stats_mode: str,
    weights: str,
    dataset: str,
    preset: str,
    step: str,
    asset_id: str,
    assume: str,
    exclude: str,
    name: str,
    force: bool,
    output: Path,
    overrides: str,
    task: str = options.AUTO,
    say: Say = silent,
) -> MakeJob | None:
    """The job of these options, or None if `findings` has errors. Inferred values are told to the user."""
    from rlinf_isaac.checkpoint.facts import parse_assumptions
    from rlinf_isaac.checkpoint.foreign.bundle_content import BundleContent
    from rlinf_isaac.checkpoint.foreign.make_plan import may_be_made
    from rlinf_isaac.checkpoint.foreign.sources import find_source
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset
    from rlinf_isaac.preflight import check_config, check_dataset, check_free_space, check_norm_stats

    patterns = options.words(exclude)
    with findings.collect():
        assumptions = parse_assumptions(assume)
        known = sorted(assumptions.keys() & set(_OF_DATASET[:2])) if dataset != options.NONE else []
        findings.add(
            Problem("needless-assumption", f"--dataset already states the {name}", f"leave {name} out of --assume")
            for name in known
        )
        which = None if asset_id == options.AUTO else asset_id
        local, named, hub = local_source(source, say)
        given = {"norm_stats": path_or_none(norm_stats), "weights": path_or_none(weights)}
        found = replace(find_source(local, **given, asset_id=which), hub=hub)
        say_source(found, say)
        number = find_step(step, found, say)
        own = options.to_overrides({"task": task}, {"task": "env.task"}, overrides)
        findings.add(check_overrides("bundle make", own))
        said = () if dataset == options.NONE else _OF_DATASET
        configured = find_config(found, preset, patterns, own, assumptions, said, say)
        config = with_asset_id(single(configured.config), asset_id, found, say)
        findings.add(check_config(config, "bundle make", own))
        findings.add(remarks(found))
        findings.raise_errors()
        data, record = read_norm_stats(found, norm_stats_mode)
        findings.add(check_norm_stats(data, found.norm_stats.path, config))
        record |= sliced_dims(data, config)
        root = None
        if dataset != options.NONE:
            root = options.find_dataset(dataset)
            # Its prompts and its rate may differ from the task: they are recorded, and an evaluation compares them.
            findings.add(check_dataset(config, root, ("cameras", "state", "actions")))
        path = output.absolute() / "bundles" / run_name(name, named if hub else found.path) / str(number)
        if force or not path.exists():
            findings.add(check_free_space(path, found.weights.size))
        elif not may_be_made(path, config, data):
            findings.add([already_there(path)])
        if findings.errors:
            return None
        content = BundleContent(
            config=config,
            step=number,
            asset_id=config.policy.asset_id,
            norm_stats=data,
            norm_stats_record=record,
            dataset=None if root is None else LeRobotDataset(root),
            stated=configured.stated,
            assumed=configured.assumed,
        )
        return MakeJob(found, content, patterns, path, force)
    return None


def already_there(path: Path) -> Problem:
    """The problem that another bundle lies at `path`."""
    return Problem("bundle-exists", f"{path} exists already", "pass --force, or another --name")
