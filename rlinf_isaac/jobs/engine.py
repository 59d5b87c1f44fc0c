"""Chooses the engine of a job by its options, and checks that the engine can run the job."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlinf_isaac.config import split_overrides
from rlinf_isaac.engines.base import Engine, EvaluationJob, RlJob, SftJob
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.jobs import options

if TYPE_CHECKING:
    from rlinf_isaac.engines.rlinf.runtime import Runtime
    from rlinf_isaac.preflight import Findings

LOCAL = "local"


def chosen_engine(chosen: Mapping[str, Any]) -> Engine:
    """The engine that these options name. Heavy packages are imported only when it gets a job."""
    if chosen["engine"] == LOCAL:
        from rlinf_isaac.engines.local import LocalEngine

        return LocalEngine()
    from rlinf_isaac.engines.rlinf import RlinfEngine

    return RlinfEngine(_runtime(chosen))


def suffix(engine: str) -> str:
    """The end of the name of a training's directory. It keeps an engine from resuming another engine's training."""
    return "" if engine == LOCAL else f"-{engine}"


def check_engine(findings: Findings, chosen: Mapping[str, Any], jobs: Sequence[SftJob | EvaluationJob | RlJob]) -> None:
    """Check that the chosen engine is installed and can run these jobs."""
    if chosen["engine"] == LOCAL:
        if chosen.get("parallel", 1) > 1:
            cause = f"--parallel {chosen['parallel']} with --engine local, which has one simulator"
            findings.add([Problem("parallel-local", cause, "choose --engine rlinf, or leave --parallel out")])
    else:
        from rlinf_isaac.engines.rlinf.preflight import check_jobs, check_runtime

        with findings.collect():
            runtime = _runtime(chosen)
            findings.add(check_runtime(runtime))
            findings.add(check_jobs(jobs, runtime))


def _runtime(chosen: Mapping[str, Any]) -> Runtime:
    from rlinf_isaac.engines.rlinf.runtime import Runtime

    return Runtime(
        python=None if chosen["rlinf_python"] == options.AUTO else chosen["rlinf_python"],
        source=options.words(chosen["rlinf_source"]),
        ray_address=_ray_address(chosen["ray_address"]),
        overrides=tuple(split_overrides(chosen["rlinf_overrides"])),
        parallel=chosen.get("parallel", 1),
    )


def _ray_address(chosen: str) -> str | None:
    if chosen == "env" and "RAY_ADDRESS" not in os.environ:
        cure = "run it as a Ray job, set RAY_ADDRESS, or name the cluster"
        raise InvalidJob.of("no-ray-address", "--ray-address env: RAY_ADDRESS is not set here", cure)
    return {options.AUTO: None, "env": os.environ.get("RAY_ADDRESS")}.get(chosen, chosen)
