"""The functions of the Python API that judge what was played: its episodes, comparisons, and plans for more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project._api.options import Company, settings_of
from mlflow_project._api.results import Compared, arm_words, run_id_of
from rlinf_isaac.api import checking
from rlinf_isaac.ground.errors import InvalidJob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from rlinf_isaac.jobs.plan import Plan


def ingest(source: str | Path, **options: Any) -> str | None:
    """Record an evaluation that another tool has written (docs/judge.md); not for RLinf's directories.

    Args:
        source: file or directory.
        options: of `ingest`: ``format``, ``episodes``, ``policy``, ``task``, ``first_seed``, ``output``, ...

    Returns:
        The id of the run, for `rows` and `compare`; of an earlier one if the source is recorded already.

    Raises:
        InvalidJob: the source or an option is wrong; all problems at once.
    """
    from mlflow_project.tracked.ingest import recorded_before, run_foreign
    from rlinf_isaac.jobs.ingest import check_foreign

    settings = settings_of("ingest", {"source": source, **options})
    company = Company.taken_from(settings)
    output = settings.pop("output")
    with checking() as findings:
        company.check(findings)
        kind, results = check_foreign(findings, **settings)
    if results is None:
        raise InvalidJob.of("unknown-results", f"{source} is of the format {kind}", "use the command line: ingest")
    with company.at_work():
        swept = run_foreign(results, output)
    if swept is None:
        return recorded_before(results.digest)
    ids = swept.run.ids()
    return ids[0] if ids else None


def rows(*runs: Any) -> DataFrame:
    """The episodes of evaluations that the store has.

    Args:
        runs: runs of eval, rl or main: `Run`, an id, a link of MLflow's UI, or a frame of `evaluate`.

    Returns:
        One row per checkpoint and episode: ``checkpoint`` (its label), ``step``, ``seed``, ``success``, ``outcome``,
        ``length`` (control steps), ``return``, one column ``subtask/...`` per subtask, ``run`` and ``sha256``.

    Raises:
        InvalidJob: there is no such run, or it has no finished evaluation.
    """
    return compare(*runs).rows()


def compare(*runs: Any, arms: Mapping[str, Sequence[Any]] | None = None) -> Compared:
    """Compare the checkpoints of one or several evaluations, seed by seed where they are paired.

    Nothing is recorded; `rlinf-isaac compare` makes the page.

    Args:
        runs: as of `rows`.
        arms: name of a recipe -> the runs of its trainings, for `Compared.arms`; as ``--arm``.

    Raises:
        InvalidJob: there is no such run, or it has no finished evaluation, or an arm is none.
    """
    from dataclasses import replace

    from mlflow_project.comparison.compare import compare as compared
    from mlflow_project.tracked.compare import check as check_compare
    from mlflow_project.tracked.compare import check_arms

    with checking() as findings:
        evaluations = check_compare(findings, runs=tuple(map(run_id_of, runs)))
        named = check_arms(findings, arm_words(arms or {}))
    return Compared(replace(compared(evaluations), arms=named))


def plan(**options: Any) -> Plan:
    """How many episodes show a difference of two success rates, or what a number of them can show.

    Args:
        options: of `plan`: ``rates=(0.86, 0.95)``, or ``baseline`` and ``difference``, or ``run``; ``power``,
            ``alpha``, ``checkpoints``, ``correlation``, ``episodes``.

    Returns:
        `Plan.rows` has one row for each way to play the episodes; `Plan.sentence` says it in words.

    Raises:
        InvalidJob: with all that is wrong with the options.
    """
    from mlflow_project.tracked.plan import measured
    from rlinf_isaac.jobs import plan as planned

    settings = settings_of("plan", options)
    settings.pop("json")
    with checking() as findings:
        found = planned.check(findings, measure=measured, **settings)
    assert found is not None
    return found
