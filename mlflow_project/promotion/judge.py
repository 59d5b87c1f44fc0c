"""Judges a candidate by the rules of the gate and, if it passes, makes it the champion of the registry.

`judge_candidate` only reads. `register` stores the bytes and the evidence with the checkpoint's LoggedModel; then
`mlflow_project.promotion.registry` creates the model version and moves the aliases.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.comparison.compare import pairing_problem
from mlflow_project.comparison.episodes import success_words, table_row
from mlflow_project.comparison.evaluations import Evaluation, evaluations_of
from mlflow_project.promotion.candidate import Candidate, assumptions, inspect
from mlflow_project.promotion.gate import Champion, Demands, Ruling, judge
from mlflow_project.promotion.looks import Family, Look, find_family
from mlflow_project.promotion.registry import Registry, Version, now
from mlflow_project.promotion.trainings import Trainings, rule_on
from mlflow_project.vocabulary import ABOUT_TAG, ASSUMED_SINCE, ASSUMED_TAG, MISMATCH_TAG
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.facts import assume_again, assumed_since
from rlinf_isaac.ground.digest import bytes_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOGGED = "checkpoint.logged"
"""Tag of a LoggedModel whose pyfunc model was uploaded completely; its value is the sha256 of the bundle."""
EVIDENCE = "promotion.json"
"""Artifact with all evidence: in the promotion's run, and in the model below ``promotions/<run id>``."""
_LOOKS = 3
"""How often the upload of the bytes is tried while other machines upload the same ones."""


@dataclass(frozen=True)
class Opponent:
    """The champion that a candidate is compared with.

    Attributes:
        version: model version of the champion.
        evaluation: evaluation on the candidate's seeds and settings; None if the champion could not be evaluated.
        problem: why it could not be evaluated, or None.
        anew: whether it was evaluated for this promotion.
    """

    version: Version
    evaluation: Evaluation | None
    problem: str | None = None
    anew: bool = False

    def evidence(self, candidate: Evaluation) -> Champion:
        """The champion's successes on the candidate's seeds, or the reason why there are none."""
        if self.evaluation is None:
            return Champion(self.version.number, None, self.problem)
        if problem := unpaired(candidate, self.evaluation):
            return Champion(self.version.number, None, problem)
        successes = {seed: self.evaluation.successes[seed] for seed in candidate.successes}
        return Champion(self.version.number, successes, anew=self.anew)


@dataclass(frozen=True)
class Judgement:
    """Result of the gate for a candidate.

    Attributes:
        bundle: the verified bundle; None if it is damaged.
        rulings: results of the rules.
        champion: the champion that the candidate was compared with, or None.
        family: the evaluations that the candidate could have been picked from.
        time: time of the judgement (ISO 8601).
    """

    candidate: Candidate
    bundle: Bundle | None
    demands: Demands
    rulings: tuple[Ruling, ...]
    champion: Opponent | None
    family: Family
    time: str = field(default_factory=now)

    @property
    def passed(self) -> bool:
        """Whether the candidate passes every rule."""
        return all(ruling.passed for ruling in self.rulings)

    @property
    def refused_by(self) -> tuple[str, ...]:
        """Names of the rules that the candidate does not pass."""
        return tuple(ruling.rule for ruling in self.rulings if not ruling.passed)

    @property
    def checkpoint(self) -> str:
        """The candidate's name (`Bundle.name`)."""
        return self.candidate.evaluation.name if self.bundle is None else self.bundle.name

    @property
    def verdict(self) -> str:
        """One sentence: whether the candidate passes, or which rules refuse it."""
        if self.passed:
            return f"Gate passed: {self.checkpoint} passes all {len(self.rulings)} rules."
        return f"Not promoted: {self.checkpoint} is refused by {', '.join(self.refused_by)}; nothing was registered."

    @property
    def text(self) -> str:
        """All evidence, rulings and requirements as JSON."""
        champion = None
        if self.champion is not None:
            champion = {"version": self.champion.version.number, "checkpoint": self.champion.version.digest}
            if self.champion.evaluation is not None:
                champion |= _evaluation_document(self.champion.evaluation)
        document = {
            "time": self.time,
            "passed": self.passed,
            "rules": [asdict(ruling) for ruling in self.rulings],
            "demands": asdict(self.demands),
            "chosen_from": self.family.size,
            "newest_sweep": self.family.newest_sweep,
            "looks": [_look_document(look) for look in self.family.looks],
            "candidate": {"checkpoint": self.candidate.digest} | _evaluation_document(self.candidate.evaluation),
            "champion": champion,
            "digests": {} if self.bundle is None else _digests(self.bundle),
        }
        return json.dumps(document, indent=1) + "\n"

    def tags(self) -> dict[str, str]:
        """Tags of the promotion's run: the finding of each rule, and what the model version has, too."""
        rules = {f"gate.{ruling.rule}": ruling.because for ruling in self.rulings}
        found = {"gate.evaluation": self.candidate.evaluation.run, "gate.chosen_from": str(self.family.size)}
        return rules | found | self.version_tags()

    def version_tags(self) -> dict[str, str]:
        """Tags of the model version: in a word each which checkpoint it is, its success and its task; and the
        assumptions. The findings of the rules are in its description, and in the promotion's run."""
        evaluation = self.candidate.evaluation
        about = {"checkpoint": self.checkpoint, "success": success_words(evaluation.success), "task": evaluation.task}
        assumed = assumptions(self.candidate, self.bundle)
        return {f"{ABOUT_TAG}{key}": text for key, text in about.items()} | {
            f"promotion.{ASSUMED_TAG}{field}": "; ".join(values) for field, values in assumed.items()
        }


def champion_evaluation(client: MlflowClient, champion: Version, candidate: Evaluation) -> Evaluation | None:
    """An evaluation of the champion that has a paired row for each row of the candidate; None if there is none."""
    for evaluation in evaluations_of(client, champion.digest or ""):
        allowed = MISMATCH_TAG not in evaluation.tags and not evaluation.stopped_by_rule
        if allowed and not unpaired(candidate, evaluation):
            return evaluation
    return None


def unpaired(candidate: Evaluation, champion: Evaluation) -> str | None:
    """Why some episode of the candidate is not paired with one of the champion; None if all are paired."""
    missing = candidate.successes.keys() - champion.successes.keys()
    if problem := pairing_problem(candidate, champion):
        return problem
    return f"the champion was not evaluated on {len(missing)} of the seeds" if missing else None


def judge_candidate(
    client: MlflowClient,
    registry: Registry,
    candidate: Candidate,
    demands: Demands,
    champion: Opponent | None = None,
    trainings: Trainings | None = None,
) -> Judgement:
    """Gather the evidence about a candidate and apply every rule to it."""
    opponent = None if champion is None else champion.evidence(candidate.evaluation)
    digest, reigns = (champion.version.digest, registry.reigns(champion.version)) if champion else (None, [])
    family = find_family(client, candidate.evaluation, digest, reigns)
    bundle, evidence = inspect(client, candidate, family, registry.rolled_back(candidate.digest), opponent)
    rulings = judge(evidence, demands)
    if demands.training_seeds > 1:
        rulings += (rule_on(trainings or Trainings(), candidate.digest, digest, demands),)
    return Judgement(candidate, bundle, demands, rulings, champion, family)


def register(
    client: MlflowClient, registry: Registry, judgement: Judgement, run: str, description: str | None = None
) -> Version:
    """Make a candidate that passed the gate the champion.

    Uploads the bytes, then the evidence; then creates the model version with its tags, and moves the aliases last.

    Args:
        run: MLflow's id of the promotion's run.
        description: of the version, in Markdown.

    Raises:
        PromotionRefused: another promotion came first.
    """
    assert judgement.passed
    assert judgement.bundle is not None
    model_id = judgement.candidate.model.model_id
    with registry.alone({"logged_model": model_id}):
        _ensure_bytes(client, judgement, judgement.bundle, model_id)
    with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
        (Path(scratch) / EVIDENCE).write_text(judgement.text, encoding="utf-8")
        client.log_model_artifacts(model_id, scratch, f"promotions/{run}")
    tags = judgement.version_tags() | {
        "promotion.run": run,
        "promotion.evidence": f"promotions/{run}/{EVIDENCE}",
        "promotion.evidence.sha256": bytes_digest(judgement.text.encode()),
    }
    champion = judgement.champion
    replaces = champion.version.number if champion else None
    return registry.promote(model_id, judgement.bundle.digest, tags, replaces, description)


def _ensure_bytes(client: MlflowClient, judgement: Judgement, bundle: Bundle, model_id: str) -> None:
    """Upload the bytes of the LoggedModel, unless it has them.

    MLflow then removes the tag that marks the model as external, which fails if another machine has just done so; the
    loop tries again.
    """
    from mlflow.exceptions import MlflowException

    from mlflow_project.serving.log_model import log_policy_model

    assumed = assume_again(bundle, judgement.candidate.evaluation.settings.get("assumed") or {})
    for look in range(_LOOKS):
        if client.get_logged_model(model_id).tags.get(LOGGED) == bundle.digest:
            return
        try:
            log_policy_model(assumed, model_id=model_id)
        except MlflowException:
            if look == _LOOKS - 1:
                raise
            continue
        tags = {ASSUMED_SINCE: json.dumps(dict(since))} if (since := assumed_since(assumed)) else {}
        client.set_logged_model_tags(model_id, {**tags, LOGGED: bundle.digest})


def _evaluation_document(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "run": evaluation.run,
        "sweep": evaluation.sweep,
        "settings": dict(evaluation.settings),
        "rows": [table_row(row) for row in evaluation.rows],
    }


def _look_document(look: Look) -> dict[str, Any]:
    seeds = {"first_seed": look.seeds.start, "episodes": len(look.seeds)}
    return {"run": look.run, "sweep": look.sweep, "checkpoint": look.checkpoint, **seeds}


def _digests(bundle: Bundle) -> dict[str, Any]:
    files = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    return {"lineage": dict(bundle.lineage), "files": files}
