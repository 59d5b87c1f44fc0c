"""From a sweep or a bundle to a judged candidate, and from there to the champion of the registry.

`find_candidate` and `judge_candidate` read only; `register` stores bytes and evidence with the checkpoint's
LoggedModel, then lets `mlflow_project.registry` name it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.chain_store import URI_TAG, Chains
from mlflow_project.compare import compare, pairing_problem
from mlflow_project.evaluations import MISMATCH_TAG, Evaluation, evaluations_of, read_evaluations, run_id_in, table_row
from mlflow_project.gate import Champion, Demands, Evidence, Ruling, judge
from mlflow_project.registry import Registry, Version, now
from mlflow_project.replica import MODEL_TAG
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.digest import bytes_digest
from rlinf_isaac.errors import InvalidJob, VideoError
from rlinf_isaac.video import verify_video

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

LOGGED = "checkpoint.logged"
"""Tag of a LoggedModel whose pyfunc model was uploaded whole: the sha256 of the bundle."""
EVIDENCE = "promotion.json"
"""Artifact with everything the gate saw: of the promotion's run, and of the model below ``promotions/<run id>``."""


@dataclass(frozen=True)
class Candidate:
    """What is to become champion.

    Attributes:
        path: the bundle's directory.
        digest: its sha256, as the store knows it.
        model: its LoggedModel.
        evaluation: its newest one, or that of the sweep.
        chosen_from: number of other checkpoints evaluated beside it, and itself.
    """

    path: Path
    digest: str
    model: LoggedModel
    evaluation: Evaluation
    chosen_from: int


@dataclass(frozen=True)
class Opponent:
    """The champion, as the candidate meets it.

    Attributes:
        evaluation: None where it could not be evaluated.
        problem: why not.
        anew: whether it was evaluated for this promotion.
    """

    version: Version
    evaluation: Evaluation | None
    problem: str | None = None
    anew: bool = False

    def evidence(self, candidate: Evaluation) -> Champion:
        """Its successes on the candidate's seeds, or why there are none."""
        if self.evaluation is None:
            return Champion(self.version.number, None, self.problem)
        if problem := unpaired(candidate, self.evaluation):
            return Champion(self.version.number, None, problem)
        successes = {seed: self.evaluation.successes[seed] for seed in candidate.successes}
        return Champion(self.version.number, successes, anew=self.anew)


@dataclass(frozen=True)
class Judgement:
    """What the gate said of a candidate.

    Attributes:
        bundle: verified; None where it is not whole.
        champion: what it was compared with, or None.
    """

    candidate: Candidate
    bundle: Bundle | None
    demands: Demands
    evidence: Evidence
    rulings: tuple[Ruling, ...]
    champion: Opponent | None

    @property
    def passed(self) -> bool:
        """Whether every rule lets the candidate pass."""
        return all(ruling.passed for ruling in self.rulings)

    @property
    def refused_by(self) -> tuple[str, ...]:
        """Names of the rules that do not."""
        return tuple(ruling.rule for ruling in self.rulings if not ruling.passed)

    def document(self) -> dict[str, Any]:
        """Everything that was seen, JSON-ready."""
        champion = None
        if self.champion is not None:
            champion = {"version": self.champion.version.number, "checkpoint": self.champion.version.digest}
            if self.champion.evaluation is not None:
                champion |= _evaluation_document(self.champion.evaluation)
        return {
            "time": now(),
            "passed": self.passed,
            "rules": [asdict(ruling) for ruling in self.rulings],
            "demands": asdict(self.demands),
            "chosen_from": self.candidate.chosen_from,
            "candidate": {"checkpoint": self.candidate.digest} | _evaluation_document(self.candidate.evaluation),
            "champion": champion,
            "digests": {} if self.bundle is None else _digests(self.bundle),
        }

    def tags(self) -> dict[str, str]:
        """Tags of the version and of the promotion's run: each rule with its numbers."""
        rules = {f"gate.{ruling.rule}": ruling.because for ruling in self.rulings}
        return rules | {"gate.evaluation": self.candidate.evaluation.run}


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
        beside = read_evaluations(client, [evaluation.sweep])
    else:
        beside = read_evaluations(client, [run_id_in(subject)])
        evaluation = compare(beside).standings[0].evaluation
        model = _model(client, evaluation.checkpoint, subject)
        path = Path(model.tags.get(URI_TAG, ""))
        if not path.is_dir():
            cause = f"the best checkpoint of {subject} lay at {path}, which is gone"
            raise InvalidJob.of("model-bytes-missing", cause, "promote where the checkpoint lies")
    return Candidate(path, evaluation.checkpoint, model, evaluation, len({each.checkpoint for each in beside}))


def champion_evaluation(client: MlflowClient, champion: Version, candidate: Evaluation) -> Evaluation | None:
    """An evaluation of the champion whose rows pair with all rows of the candidate; None when there is none."""
    for each in evaluations_of(client, champion.digest or ""):
        if MISMATCH_TAG not in each.tags and not each.stopped_by_rule and not unpaired(candidate, each):
            return each
    return None


def unpaired(candidate: Evaluation, champion: Evaluation) -> str | None:
    """Why not every episode of the candidate is paired with one of the champion; None when it is."""
    missing = candidate.successes.keys() - champion.successes.keys()
    if problem := pairing_problem(candidate, champion):
        return problem
    return f"the champion was not evaluated on {len(missing)} of the seeds" if missing else None


def settings_of(client: MlflowClient, evaluation: Evaluation) -> list[str]:
    """Config overrides that give another checkpoint the episodes of an evaluation."""
    params = client.get_run(evaluation.run).data.params
    overrides = [
        f"{key.removeprefix('cfg/').replace('/', '.')}={value}"
        for key, value in params.items()
        if key.startswith(("cfg/env/", "cfg/eval/"))
    ]
    seeds = evaluation.successes
    return [*overrides, f"eval.first_seed={min(seeds)}", f"eval.episodes={len(seeds)}"]


def judge_candidate(
    client: MlflowClient,
    registry: Registry,
    candidate: Candidate,
    demands: Demands,
    champion: Opponent | None = None,
) -> Judgement:
    """Look at everything the rules ask about (bytes, chain, rows, videos), and judge."""
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
    evidence = Evidence(
        files=len(bundle.manifest.files) if bundle else 0,
        bundle=tuple(problems),
        links=sum(1 for _ in chain.walk()),
        breaks=_causes([each for each in breaks if each.code != "mismatch-allowed"]),
        overrides=_causes([each for each in breaks if each.code == "mismatch-allowed"]),
        rows=tuple(_row_problems(candidate, run)),
        videos=videos,
        unplayable=unplayable,
        successes=candidate.evaluation.successes,
        chosen_from=candidate.chosen_from,
        rolled_back=registry.rolled_back(candidate.digest),
        champion=None if champion is None else champion.evidence(candidate.evaluation),
    )
    return Judgement(candidate, bundle, demands, evidence, judge(evidence, demands), champion)


def register(client: MlflowClient, registry: Registry, judgement: Judgement, run: str) -> Version:
    """Make a candidate that passed the champion: bytes, then evidence, then the version with its tags, then aliases.

    Args:
        run: MLflow's id of the promotion's run.

    Raises:
        PromotionRefused: another one was faster.
    """
    assert judgement.passed
    assert judgement.bundle is not None
    model_id = judgement.candidate.model.model_id
    if client.get_logged_model(model_id).tags.get(LOGGED) != judgement.bundle.digest:
        from mlflow_project.serving.log_model import log_policy_model

        log_policy_model(judgement.bundle, model_id=model_id)
        client.set_logged_model_tags(model_id, {LOGGED: judgement.bundle.digest})
    document = json.dumps(judgement.document(), indent=1)
    with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
        (Path(scratch) / EVIDENCE).write_text(document, encoding="utf-8")
        client.log_model_artifacts(model_id, scratch, f"promotions/{run}")
    tags = judgement.tags() | {
        "promotion.run": run,
        "promotion.evidence": f"promotions/{run}/{EVIDENCE}",
        "promotion.evidence.sha256": bytes_digest(document.encode()),
    }
    champion = judgement.champion
    return registry.promote(model_id, judgement.bundle.digest, tags, champion.version.number if champion else None)


def _model(client: MlflowClient, digest: str, subject: str) -> LoggedModel:
    experiments = [each.experiment_id for each in client.search_experiments()]
    models = client.search_logged_models(experiments, f"tags.`{MODEL_TAG}` = '{digest}'")
    if not models:
        cause = f"the MLflow store does not know the checkpoint {digest} of {subject}"
        raise InvalidJob.of("not-in-store", cause, "evaluate it with this store, or set MLFLOW_TRACKING_URI")
    return models[0]


def _row_problems(candidate: Candidate, run: Run) -> list[str]:
    evaluation, problems = candidate.evaluation, []
    strange = {row.checkpoint for row in evaluation.rows} - {candidate.digest}
    if strange:
        problems.append(f"run {evaluation.run} has rows of other checkpoints ({', '.join(sorted(strange))})")
    rate = sum(evaluation.successes.values()) / len(evaluation.successes)
    recorded = run.data.metrics["eval/success_once"]
    if len(evaluation.rows) != len(evaluation.successes) or abs(rate - recorded) > 1e-9:
        problems.append(
            f"run {evaluation.run} recorded success {recorded:.4g}, its rows say {rate:.4g}: one was edited"
        )
    if evaluation.stopped_by_rule:
        problems.append(
            "the outcomes decided when the evaluation stopped (--until-decided), so no exact test holds for it:"
            " evaluate the checkpoint on a number of episodes that is fixed before"
        )
    if not evaluation.settings:
        problems.append(f"run {evaluation.run} does not say in which settings it was evaluated")
    return problems


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


def _evaluation_document(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "run": evaluation.run,
        "sweep": evaluation.sweep,
        "settings": dict(evaluation.settings),
        "rows": [table_row(row) for row in evaluation.rows],
    }


def _digests(bundle: Bundle) -> dict[str, Any]:
    files: Mapping[str, Any] = bundle.manifest.files
    return {"lineage": dict(bundle.lineage), "files": {name: entry.sha256 for name, entry in files.items()}}


def _causes(problems: Sequence[Any]) -> tuple[str, ...]:
    return tuple(f"[{problem.code}] {problem.cause}" for problem in problems)
