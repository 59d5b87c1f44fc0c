"""Reads from a recorded evaluation what the next one can expect: rates and correlation of its best two, its pace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_project.comparison.compare import Comparison, compare
from mlflow_project.comparison.evaluations import read_evaluations, run_id_in
from mlflow_project.comparison.foreign import INGESTED
from mlflow_project.vocabulary import VERB_TAG
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.jobs.plan import Measured

if TYPE_CHECKING:
    from mlflow import MlflowClient


def measured(text: str) -> Measured:
    """What the run says that `text` names: an id, or a link of MLflow's UI.

    Raises:
        InvalidJob: there is no such run in the store, or it has evaluated fewer than two checkpoints.
    """
    from mlflow_project.tracking.store import existing_store

    run_id = run_id_in(text)
    client = existing_store()
    comparison = compare(read_evaluations(client, [run_id]))
    if not comparison.pairs:
        cause = f"run {run_id} has evaluated a single checkpoint, so that it holds neither two rates nor a correlation"
        raise InvalidJob.of("plan-run", cause, "name a run with two checkpoints, or give --rates and --correlation")
    first, second = comparison.standings[:2]
    pair = next(each for each in comparison.pairs if {each.first, each.second} == {0, 1})
    # phi is not defined where one of the two solved all or none; any value then gives the same discordance.
    phi = None if pair.counts is None else pair.counts.phi or 0.0
    rates = first.success.rate, second.success.rate
    if pair.counts is not None and not comparison.tasks:  # on the seeds that both have
        counts = pair.counts
        rates = (counts.both + counts.wins) / counts.n, (counts.both + counts.losses) / counts.n
    return Measured((first.label, second.label), rates, phi, seconds_per_episode(client, comparison))


def seconds_per_episode(client: MlflowClient, comparison: Comparison) -> float | None:
    """How long the sweep took per episode, starting and filming included; None if it is another tool's, did more than
    evaluate, or has not ended."""
    evaluations = [each.evaluation for each in comparison.standings]
    sweeps = {each.sweep for each in evaluations}
    if len(sweeps) != 1 or any(INGESTED in each.settings or each.varied for each in evaluations):
        return None
    sweep = client.get_run(sweeps.pop())
    if sweep.data.tags.get(VERB_TAG) != "eval" or sweep.info.end_time is None:
        return None
    played: int = sum(len(each.rows) for each in evaluations)
    return float(sweep.info.end_time - sweep.info.start_time) / 1000 / played
