"""A candidate for promotion: which checkpoint it is, and what there is to see of it. Reads only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_project.comparison.compare import compare
from mlflow_project.comparison.evaluations import Evaluation, evaluations_of, read_evaluations, run_id_in
from mlflow_project.lineage.chain_store import Chains
from mlflow_project.promotion.gate import Champion, Evidence
from mlflow_project.promotion.looks import Family
from mlflow_project.vocabulary import ASSUMED_TAG, MODEL_TAG, SUCCESS, URI_TAG
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.facts import assumed, spell
from rlinf_isaac.ground.errors import InvalidJob, Problem, VideoError
from rlinf_isaac.media.video import verify_video

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

OVERRIDE = "mismatch-allowed"
"""Code by which the chain reports a run that went on in spite of a mismatch."""


@dataclass(frozen=True)
class Candidate:
    """What is to become champion.

    Attributes:
        path: the bundle's directory.
        digest: its sha256, as the store knows it.
        model: its LoggedModel.
        evaluation: its newest one, or that of the sweep.
    """

    path: Path
    digest: str
    model: LoggedModel
    evaluation: Evaluation


def find_candidate(client: MlflowClient, subject: str) -> Candidate:
    """The checkpoint that `subject` means: a bundle's directory, or the best one of a run (its id, or a link to it).

    Raises:
        InvalidJob: there is none, the store does not know it, or it was never evaluated.
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
        model = _model(client, evaluation.checkpoint, subject)
        path = Path(model.tags.get(URI_TAG, ""))
        if not path.is_dir():
            cause = f"the best checkpoint of {subject} lay at {path}, which is gone"
            raise InvalidJob.of("model-bytes-missing", cause, "promote where the checkpoint lies")
    return Candidate(path, evaluation.checkpoint, model, evaluation)


def settings_of(client: MlflowClient, evaluation: Evaluation) -> list[str]:
    """Config overrides that give another checkpoint the episodes of an evaluation."""
    params = client.get_run(evaluation.run).data.params
    overrides = [
        f"{key.removeprefix('cfg/').replace('/', '.')}={value}"
        for key, value in params.items()
        if key.startswith(("cfg/env/", "cfg/eval/"))
        and not (key == "cfg/eval/video_size" and params.get("cfg/eval/videos") == "0")  # then it decides nothing
    ]
    seeds = evaluation.successes
    return [*overrides, f"eval.first_seed={min(seeds)}", f"eval.episodes={len(seeds)}"]


def inspect(
    client: MlflowClient, candidate: Candidate, family: Family, rolled_back: str | None, champion: Champion | None
) -> tuple[Bundle | None, Evidence]:
    """Look at everything the rules ask about: bytes, chain, rows, videos. Gives the bundle where it is whole.

    Args:
        family: what it could have been picked from.
        rolled_back: version of the same bytes that was rolled back.
        champion: what it is compared with.
    """
    bundle, problems = None, []
    try:
        bundle = read_bundle(candidate.path)
        if bundle.digest != candidate.digest:
            problems.append(f"{candidate.path} is {bundle.digest} now, {candidate.digest} was evaluated")
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
        breaks=_causes([each for each in breaks if each.code != OVERRIDE]),
        overrides=_causes([each for each in breaks if each.code == OVERRIDE]),
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
    """Field -> what was assumed of it, by whoever made the bundle and by whoever evaluated it; one value where both
    assumed the same."""
    pairs = [(field, spell(value)) for field, value in (assumed(bundle) if bundle else {}).items()]
    for tag, value in candidate.evaluation.tags.items():
        if tag.startswith(ASSUMED_TAG):
            pairs.append((tag.removeprefix(ASSUMED_TAG), value))
    return {field: tuple(dict.fromkeys(v for f, v in pairs if f == field)) for field in sorted(dict(pairs))}


def _assumption_texts(candidate: Candidate, bundle: Bundle | None) -> Iterator[str]:
    for field, values in assumptions(candidate, bundle).items():
        for value in values:
            yield f"{field}={value} was assumed of step {candidate.evaluation.step} (nobody recorded it)"


def _model(client: MlflowClient, digest: str, subject: str) -> LoggedModel:
    experiments = [each.experiment_id for each in client.search_experiments()]
    models = client.search_logged_models(experiments, f"tags.`{MODEL_TAG}` = '{digest}'")
    if not models:
        cause = f"the MLflow store does not know the checkpoint {digest} of {subject}"
        raise InvalidJob.of("not-in-store", cause, "evaluate it with this store, or set MLFLOW_TRACKING_URI")
    return models[0]


def _row_problems(candidate: Candidate, run: Run) -> Iterator[str]:
    evaluation = candidate.evaluation
    strange = {row.checkpoint for row in evaluation.rows} - {candidate.digest}
    if strange:
        yield f"run {evaluation.run} has rows of other checkpoints ({', '.join(sorted(strange))})"
    rate = sum(evaluation.successes.values()) / len(evaluation.successes)
    recorded = run.data.metrics[SUCCESS]
    if len(evaluation.rows) != len(evaluation.successes) or abs(rate - recorded) > 1e-9:
        yield f"run {evaluation.run} recorded success {recorded:.4g}, its rows say {rate:.4g}: one was edited"
    if evaluation.stopped_by_rule:
        yield (
            "the outcomes decided when the evaluation stopped (--until-decided), so no exact test holds for it:"
            " evaluate the checkpoint on a number of episodes that is fixed before"
        )
    if not evaluation.settings:
        yield f"run {evaluation.run} does not say in which settings it was evaluated"


def _watch_videos(client: MlflowClient, evaluation: Evaluation) -> tuple[int, tuple[str, ...]]:
    """Number of videos that decode and are as long as their episodes, and what is wrong with others."""
    from mlflow.exceptions import MlflowException

    good, problems = 0, []
    with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
        for row in evaluation.rows:
            if row.video is None:
                continue
            try:
                verify_video(client.download_artifacts(evaluation.run, row.video, scratch), row.length + 1)
                good += 1
            except (VideoError, MlflowException, OSError) as error:
                problems.append(f"{row.video} of seed {row.seed}: {error}")
    return good, tuple(problems)


def _causes(problems: Iterable[Problem]) -> tuple[str, ...]:
    return tuple(f"[{problem.code}] {problem.cause}" for problem in problems)
