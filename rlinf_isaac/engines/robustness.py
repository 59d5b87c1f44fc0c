"""The arms of an evaluation that varies its environment: the usual episodes, and the same seeds along each axis.

Each arm is an evaluation of its own, whose settings name the variation: so its rows lie in a directory of their own,
and are resumed, filmed and told again as those of any evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.tasks.variation import Variation, axes_in


def variations_of(config: JobConfig) -> tuple[Variation, ...]:
    """What a job's config asks for, in the order of ``vary.axes``."""
    return tuple(Variation(axis, getattr(config.vary, axis)) for axis in axes_in(config.vary.axes))


def control_of(job: EvaluationJob) -> EvaluationJob:
    """The arm that is not varied."""
    return replace(job, vary=())


def varied_arms(job: EvaluationJob) -> Iterator[EvaluationJob]:
    """The arms that are, one for each axis, which differ from the control in nothing else."""
    for variation in job.vary:
        yield replace(job, vary=(), varied=variation)
