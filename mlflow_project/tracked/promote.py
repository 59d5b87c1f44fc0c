"""Promotion of a checkpoint to champion of the model registry, and the way back, as tracked runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from mlflow_project.comparison.compare import Comparison, pairing_problem
from mlflow_project.comparison.evaluations import read_evaluations, run_id_in
from mlflow_project.lineage.provenance import provenance_tags
from mlflow_project.promotion.candidate import Candidate, find_candidate, settings_of
from mlflow_project.promotion.description import description, run_metrics, run_params
from mlflow_project.promotion.gate import Demands, Require
from mlflow_project.promotion.judge import (
    EVIDENCE,
    Judgement,
    Opponent,
    champion_evaluation,
    judge_candidate,
    register,
)
from mlflow_project.promotion.looks import TASK
from mlflow_project.promotion.registry import CHAMPION, Registry, Version, now
from mlflow_project.promotion.trainings import Trainings, read_trainings
from mlflow_project.serving.resolve import resolve_model
from mlflow_project.tracked import PROJECT
from mlflow_project.tracked import evaluation as tracked_evaluation
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.runs import TrackedRun, tracked_run
from mlflow_project.tracking.store import existing_store
from mlflow_project.vocabulary import EXPERIMENT_PLACEHOLDER, NOTE_TAG, local_run, run_placeholder
from rlinf_isaac.config.task import STACK_CUBES
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.ground.errors import InvalidJob, Problem, PromotionRefused
from rlinf_isaac.jobs import Say, options
from rlinf_isaac.jobs import evaluation as jobs_evaluation
from rlinf_isaac.preflight.findings import Findings

if TYPE_CHECKING:
    from mlflow import MlflowClient

STACK_CUBE = "stack-cube"
"""The registered model of stack-cube, whatever the number of cubes. Another task has its own name's."""
LONGEST_NAME = 60
"""Characters of a registered model's name; several tasks without a name of their own may have more."""

PromotionOutcome = Literal["champion already", "promoted", "would be promoted", "refused", "overtaken"]
Show = Callable[[Comparison | Judgement], None]


@dataclass(frozen=True)
class PromoteJob:
    """A promotion that can begin: the candidate, what is asked of it, and the registered model's name."""

    candidate: Candidate
    demands: Demands
    name: str
    dry_run: bool = False
    trainings: Trainings | None = None


@dataclass(frozen=True)
class Promotion:
    """How a promotion ended.

    Attributes:
        outcome: in a word.
        version: the candidate's version in the registry, if it has one.
        champion: the version that was champion before.
        refused_by: the rules that did not let the candidate pass.
    """

    outcome: PromotionOutcome
    version: Version | None
    champion: Version | None
    refused_by: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the candidate is (with `PromoteJob.dry_run`: could become) the champion now."""
        return self.outcome in ("champion already", "promoted", "would be promoted")

    def words(self, name: str) -> str:
        """The outcome at the registered model `name`, short enough for a tag."""
        if self.refused_by:
            return f"refused by {', '.join(self.refused_by)}"
        return f"{self.outcome}: {name} version {self.version.number}" if self.version else self.outcome


def check(
    findings: Findings,
    *,
    subject: str,
    name: str = options.AUTO,
    min_success: str = "0.5",
    require: str = "better",
    margin: str = "0.1",
    alpha: str = "0.05",
    every_task: bool = False,
    training_seeds: int = 1,
    arm: tuple[str, ...] = (),
    dry_run: bool = False,
) -> PromoteJob | None:
    """Check these options and find the candidate; None where `findings` has errors."""
    demands = Demands(
        _number(findings, "--min-success", min_success, 0, 1),
        cast(Require, require),
        _number(findings, "--margin", margin, 0, 1),
        _number(findings, "--alpha", alpha, 0, 0.5, inside=True),
        every_task,
        training_seeds,
    )
    trainings = _trainings(findings, demands, [word for word in arm if word != options.NONE])
    if name != options.AUTO:
        _check_name(findings, name)
    if subject == options.NONE:
        cause = "there is no SUBJECT to promote"
        findings.add([Problem("nothing-to-promote", cause, "name a run or a checkpoint's directory, or --rollback")])
        return None
    with findings.collect():
        candidate = find_candidate(existing_store(), subject)
        if name == options.AUTO:
            name = registered_name(existing_store().get_run(candidate.evaluation.run).data.params.get(TASK))
        return None if findings.errors else PromoteJob(candidate, demands, name, dry_run, trainings)
    return None


def _trainings(findings: Findings, demands: Demands, words: Sequence[str]) -> Trainings | None:
    """What --arm names; nothing where `findings` has errors."""
    if demands.training_seeds > 1 and not words:
        cause = f"--training-seeds {demands.training_seeds} compares recipes, and no trainings are named"
        findings.add([Problem("bad-arm", cause, "add --arm candidate=RUN,RUN,... and --arm champion=RUN,RUN,...")])
    if words and demands.training_seeds == 1:
        findings.add([Problem("bad-arm", "--arm is read with --training-seeds alone", "add --training-seeds N")])
    elif words:
        with findings.collect():
            client = existing_store()
            return read_trainings(words, lambda text: read_evaluations(client, [run_id_in(text)]))
    return None


def registered_name(task: str | None) -> str:
    """The registered model of a task, or of several, by the key ``env.task`` of an evaluation."""
    if task is None or task in STACK_CUBES:
        return STACK_CUBE
    name = re.sub(r"[^\w.-]+", "-", task)
    return name if len(name) <= LONGEST_NAME else f"{task.count(',') + 1}-tasks-{bytes_digest(task.encode())[:8]}"


def run(job: PromoteJob, output: Path, say: Say, show: Show) -> Promotion:
    """Judge and, where every rule lets it pass, promote, in a tracked run.

    Args:
        job: the candidate, and what is asked of it.
        output: where the results go, those of an evaluation of the champion among them.
        say: takes lines on what happens meanwhile.
        show: gets the comparison of an evaluation of the champion, and the judgement as soon as it is there.
    """
    client, candidate = existing_store(), job.candidate
    registry = Registry(client, job.name)
    champion = registry.aliased(CHAMPION)
    if champion is not None and champion.digest == candidate.digest:
        if not job.dry_run:
            registry.finish(champion)
        return Promotion("champion already", champion, champion)
    title = f"promote {candidate.evaluation.name} to {job.name}"
    with tracked_run("promote", output=output, name=title, tags=provenance_tags(PROJECT)) as tracked:
        opponent = _opponent(client, registry, champion, candidate, tracked, output, say, show) if champion else None
        judgement = judge_candidate(client, registry, candidate, job.demands, opponent, job.trainings)
        note = description(judgement, EXPERIMENT_PLACEHOLDER, run_placeholder(tracked.recorder.run))
        tracked.recorder.tags(judgement.tags() | {NOTE_TAG: note})
        tracked.recorder.params(run_params(judgement, job.name), prefix="gate")
        tracked.recorder.metrics(run_metrics(judgement))
        tracked.recorder.text(EVIDENCE, judgement.text)
        show(judgement)
        outcome: PromotionOutcome = "refused"
        version = None
        if judgement.passed and job.dry_run:
            outcome = "would be promoted"
        elif judgement.passed:
            try:
                run_id, experiment = _ids(tracked)
                note = description(judgement, experiment, run_id)
                version = register(client, registry, judgement, run_id, note)
                outcome = "promoted"
            except PromotionRefused as error:
                outcome = "overtaken"
                say(str(error))
        tracked.recorder.tags({"promotion.outcome": outcome, "promotion.model": job.name})
        if version is not None:
            tracked.recorder.tags({"promotion.version": version.number})
    return Promotion(outcome, version, champion, tuple(judgement.refused_by))


def check_rollback(findings: Findings, *, subject: str, name: str) -> Registry | None:
    """The registry to roll back; None where `findings` has errors."""
    name = STACK_CUBE if name == options.AUTO else name
    _check_name(findings, name)
    if subject != options.NONE:
        cause = f"--rollback goes back to `previous`, whatever SUBJECT ({subject}) is"
        findings.add([Problem("rollback-subject", cause, "leave SUBJECT out, and name the model with --name")])
    with findings.collect():
        return Registry(existing_store(), name)
    return None


def roll_back(registry: Registry, output: Path) -> tuple[Version, Version]:
    """Make the previous champion champion again, in a tracked run.

    Returns:
        The version that was taken back, and the one that is champion now.

    Raises:
        PromotionRefused: there is no previous champion.
    """
    with tracked_run(
        "promote", output=output, name=f"roll back {registry.name}", tags=provenance_tags(PROJECT)
    ) as tracked:
        tags = {"rollback.time": now(), "rollback.run": _ids(tracked)[0]}
        was, champion = registry.rollback(tags)
        tracked.recorder.tags(
            {"promotion.outcome": "rolled back", "promotion.model": registry.name, "promotion.version": champion.number}
        )
    return was, champion


def _opponent(
    client: MlflowClient,
    registry: Registry,
    champion: Version,
    candidate: Candidate,
    tracked: TrackedRun,
    output: Path,
    say: Say,
    show: Show,
) -> Opponent:
    """The champion's episodes on the candidate's seeds and settings: those of the store, or played now."""
    if known := champion_evaluation(client, champion, candidate.evaluation):
        return Opponent(champion, known)
    # Where episodes are no functions of their seeds, an evaluation is no pair even of itself.
    if problem := pairing_problem(candidate.evaluation, candidate.evaluation):
        return Opponent(champion, None, problem)
    say(f"The champion, version {champion.number}, is evaluated on the candidate's seeds and settings.")
    findings = Findings()
    try:
        bundle = resolve_model(f"models:/{registry.name}/{champion.number}")
        job = jobs_evaluation.plan(findings, [bundle], settings_of(client, candidate.evaluation), output)
        findings.raise_errors()
        assert job is not None
        comparison = tracked_evaluation.run(job, output, "none", say=say).comparison
        show(comparison)
    except InvalidJob as error:
        return Opponent(champion, None, "; ".join(f"[{each.code}] {each.cause}" for each in error.problems))
    found = comparison.standings[0].evaluation
    ids = tracked.uploader.ids(local_run(found.run) or found.run)
    return Opponent(champion, replace(found, run=ids[0] if ids else found.run), anew=True)


def _ids(tracked: TrackedRun) -> tuple[str, str]:
    """MLflow's id of the run, and of its experiment.

    Raises:
        PromotionRefused: the store does not answer; a registry that cannot be read is not written either.
    """
    ids = tracked.ids()
    if ids is None:
        uri = without_credentials(tracked.tracking_uri)
        raise PromotionRefused(f"{uri} does not take the run of this promotion; nothing was registered")
    return ids


def _check_name(findings: Findings, name: str) -> None:
    if not name.strip() or set(name) & set("/:@'\""):
        cause = f"--name {name!r} cannot stand in models:/NAME@champion"
        findings.add([Problem("bad-model-name", cause, "use letters, digits, - and _")])


def _number(findings: Findings, option: str, text: str, low: float, high: float, *, inside: bool = False) -> float:
    """The number in [low, high], or in (low, high)."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (low < value < high if inside else low <= value <= high):
        cause = (
            f"{option} {text} is no number {'between' if inside else 'from'} {low} {'and' if inside else 'to'} {high}"
        )
        findings.add([Problem("bad-number", cause, "0.5 is 50 %")])
    return value
