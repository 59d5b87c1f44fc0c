"""Finds a candidate for promotion and collects the evidence about it. Changes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_project.comparison.compare import compare
from mlflow_project.comparison.evaluations import Evaluation, evaluations_of, read_evaluations, run_id_in
from mlflow_project.comparison.foreign import INGESTED
from mlflow_project.lineage.chain_store import Chains
from mlflow_project.lineage.models_of import models_of
from mlflow_project.promotion.gate import Champion, Evidence
from mlflow_project.promotion.looks import Family
from mlflow_project.vocabulary import ASSUMED_TAG, SUCCESS, URI_TAG
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.facts import assumed, spell
from rlinf_isaac.config.suite import OF_EACH_TASK
from rlinf_isaac.ground.errors import InvalidJob, Problem, VideoError
from rlinf_isaac.media.video import verify_video

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

OVERRIDE = "mismatch-allowed"
"""Problem code of the chain for a run that was allowed to continue in spite of a mismatch."""


@dataclass(frozen=True)
class Candidate:
    """The checkpoint that may become champion.

    Attributes:
        path: directory of the bundle.
        digest: sha256 of the bundle, as recorded in the store.
        model: LoggedModel of the bundle.
        evaluation: evaluation of the bundle: the newest one, or the one of the given sweep.
    """

    path: Path
    digest: str
    model: LoggedModel
    evaluation: Evaluation


def find_candidate(client: MlflowClient, subject: str) -> Candidate:
    """The checkpoint that `subject` names: the directory of a bundle, or a run (id or link), whose best one is taken.

    Raises:
        InvalidJob: there is no such checkpoint, the store does not know it, or it was never evaluated.
    """
    if Path(subject).is_dir():
        digest = read_bundle(subject, verify=False).digest
        model, path = _model(client, digest, subject), Path(subject)
        evaluations = evaluations_of(client, digest)
        if not evaluations:
            cause = f"{subject} has no finished evaluation in this store"
            raise InvalidJob.of("not-evaluated", cause, f"rlinf-isaac eval --ckpt-root {Path(subject).parent}")
        evaluation = evaluations[0]
    else:
        evaluation = compare(read_evaluations(client, [run_id_in(subject)])).standings[0].evaluation
        if INGESTED in evaluation.settings:
            cause = f"{evaluation.name} of {subject} was evaluated by another tool: its checkpoint is not known here"
            raise InvalidJob.of("ingested-candidate", cause, "evaluate it with rlinf-isaac eval, and promote that run")
        model = _model(client, evaluation.checkpoint, subject)
        path = Path(model.tags.get(URI_TAG, ""))
        if not path.is_dir():
            cause = f"the best checkpoint of {subject} was recorded at {path}, which does not exist"
            raise InvalidJob.of("model-bytes-missing", cause, "promote on the machine that has the checkpoint")
    return Candidate(path, evaluation.checkpoint, model, evaluation)


def settings_of(client: MlflowClient, evaluation: Evaluation) -> list[str]:
    """Config overrides with which another checkpoint is evaluated on the same episodes as in `evaluation`."""
    params = client.get_run(evaluation.run).data.params
    overrides = [
        f"{key.removeprefix('cfg/').replace('/', '.')}={value}"
        for key, value in params.items()
        if key.startswith(("cfg/env/", "cfg/eval/"))
        # An override that has no effect is refused, as the size of videos is without videos.
        and not (key == "cfg/eval/video_size" and params.get("cfg/eval/videos") == "0")
    ]
    seeds = {row.seed for row in evaluation.rows}
    if evaluation.tasks:  # each task has its own
        overrides = [each for each in overrides if each.partition("=")[0] not in OF_EACH_TASK]
    return [*overrides, f"eval.first_seed={min(seeds)}", f"eval.episodes={len(seeds)}"]


def inspect(
    client: MlflowClient, candidate: Candidate, family: Family, rolled_back: str | None, champion: Champion | None
) -> tuple[Bundle | None, Evidence]:
    """Check the bytes, the chain, the rows and the videos of a candidate, for the rules of the gate.

    Args:
        family: the evaluations that the candidate could have been picked from.
        rolled_back: number of a version with the same bytes that was rolled back, or None.
        champion: the champion that the candidate is compared with, or None.

    Returns:
        the bundle (None if it is damaged) and the evidence.
    """
    bundle, problems = None, []
    try:
        bundle = read_bundle(candidate.path)
        if bundle.digest != candidate.digest:
            problems.append(f"{candidate.path} is now {bundle.digest}, but {candidate.digest} was evaluated")
    except InvalidJob as error:
        problems += _causes(error.problems)
    chain = Chains(client).of_bundle(candidate.path)
    breaks = chain.breaks()
    run = client.get_run(candidate.evaluation.run)
    videos, unplayable = _watch_videos(client, candidate.evaluation)
    return bundle, Evidence(
        files=len(bundle.manifest.files) if bundle else 0,
        bundle=tuple(problems),
        links=sum(1 for _ in chain.walk()),
        breaks=_causes([problem for problem in breaks if problem.code != OVERRIDE]),
        overrides=_causes([problem for problem in breaks if problem.code == OVERRIDE]),
        rows=tuple(_row_problems(candidate, run)),
        videos=videos,
        unplayable=unplayable,
        successes=candidate.evaluation.successes,
        chosen_from=family.size,
        newest_sweep=family.newest_sweep,
        chosen_among=family.parts,
        since=family.since.version if family.since else None,
        assumptions=tuple(_assumption_texts(candidate, bundle)),
        rolled_back=rolled_back,
        champion=champion,
    )


def assumptions(candidate: Candidate, bundle: Bundle | None) -> dict[str, tuple[str, ...]]:
    """Field -> values that were assumed for it when the bundle was made and when it was evaluated; equal values are
    listed once."""
    pairs = [(field, spell(value)) for field, value in (assumed(bundle) if bundle else {}).items()]
    for tag, value in candidate.evaluation.tags.items():
        if tag.startswith(ASSUMED_TAG):
            pairs.append((tag.removeprefix(ASSUMED_TAG), value))
    return {field: tuple(dict.fromkeys(v for f, v in pairs if f == field)) for field in sorted(dict(pairs))}


def _assumption_texts(candidate: Candidate, bundle: Bundle | None) -> Iterator[str]:
    for field, values in assumptions(candidate, bundle).items():
        for value in values:
            yield f"{field}={value} was assumed for {candidate.evaluation.name} (nobody recorded it)"


def _model(client: MlflowClient, digest: str, subject: str) -> LoggedModel:
    models = models_of(client, digest)
    if not models:
        cause = f"the MLflow store does not know the checkpoint {digest} of {subject}"
        raise InvalidJob.of("not-in-store", cause, "evaluate it with this store, or set MLFLOW_TRACKING_URI")
    return models[0]


def _row_problems(candidate: Candidate, run: Run) -> Iterator[str]:
    evaluation = candidate.evaluation
    others = {row.checkpoint for row in evaluation.rows} - {candidate.digest}
    if others:
        yield f"run {evaluation.run} has rows of other checkpoints ({', '.join(sorted(others))})"
    rate = evaluation.success.rate
    if len(counts := {len(evaluation.of_task(task)) for task in evaluation.tasks}) > 1:
        yield f"the tasks have different numbers of episodes ({', '.join(map(str, sorted(counts)))})"
    recorded = run.data.metrics[SUCCESS]
    if len(evaluation.rows) != len(evaluation.successes) or abs(rate - recorded) > 1e-9:
        yield f"run {evaluation.run} recorded success {recorded:.4g}, its rows say {rate:.4g}: one was edited"
    if evaluation.stopped_by_rule:
        yield (
            "the outcomes decided when the evaluation stopped (--until-decided), so no exact test holds for it:"
            " evaluate the checkpoint on a number of episodes that is fixed in advance"
        )
    if not evaluation.settings:
        yield f"run {evaluation.run} does not record the settings of its evaluation"


def _watch_videos(client: MlflowClient, evaluation: Evaluation) -> tuple[int, tuple[str, ...]]:
    """Number of videos that decode and are as long as their episodes, and the problems of the others."""
    from mlflow.exceptions import MlflowException

    good, problems = 0, []
    with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
        for row in evaluation.rows:
            if row.video is None:
                continue
            try:
                verify_video(client.download_artifacts(evaluation.run, row.video, scratch), row.film_length + 1)
                good += 1
            except (VideoError, MlflowException, OSError) as error:
                problems.append(f"{row.video} of seed {row.seed}: {error}")
    return good, tuple(problems)


def _causes(problems: Iterable[Problem]) -> tuple[str, ...]:
    return tuple(f"[{problem.code}] {problem.cause}" for problem in problems)
