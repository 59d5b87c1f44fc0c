"""`promote`: the best checkpoint of a sweep becomes the champion of the model registry, if it passes the gate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, preflight, stdout, verb_session
from mlflow_project.vocabulary import local_run
from rlinf_isaac.ground.errors import InvalidJob, Problem, PromotionRefused
from rlinf_isaac.ground.probe import check_output

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlflow_project.promotion.candidate import Candidate
    from mlflow_project.promotion.gate import Demands, Require
    from mlflow_project.promotion.judge import Opponent
    from mlflow_project.promotion.registry import Registry, Version
    from mlflow_project.tracking.runs import TrackedRun
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac promote 0123456789abcdef0123456789abcdef --min-success 0.8
  rlinf-isaac promote CHECKPOINTS/1200 --require not-worse --margin 0.1 --dry-run
  rlinf-isaac promote --rollback --name stack-cube
  mlflow run . -e promote -P subject=RUN_ID"""

NAME = "stack-cube"


@dataclass(frozen=True)
class PromoteJob:
    """A promotion that can begin: the candidate, what is asked of it, and the registered model's name."""

    candidate: Candidate
    demands: Demands
    name: str
    dry_run: bool = False


@click.command("promote", epilog=EXAMPLE)
@click.argument("subject", default="none")
@options.option("--name", "Registered model.", NAME)
@options.option("--min-success", "Success rate that the candidate must be shown to reach, in [0, 1].", "0.5")
@click.option(
    "--require",
    type=click.Choice(["better", "not-worse"]),
    default="better",
    show_default=True,
    help="Against the champion: shown to be better, or shown to be not worse by --margin or more.",
)
@options.option("--margin", "Largest loss of success rate that `not-worse` lets pass.", "0.1")
@options.option("--alpha", "Error rate of each test, over all evaluations while a champion stays; in (0, 0.5).", "0.05")
@options.flag("--dry-run", "Judge, and change nothing in the registry.")
@options.flag("--rollback", "Make the previous champion champion again. Takes no SUBJECT.")
@options.output
def command(
    subject: str,
    name: str,
    min_success: str,
    require: str,
    margin: str,
    alpha: str,
    dry_run: bool,
    rollback: bool,
    output: Path,
) -> None:
    """Make SUBJECT the champion: a run of eval, rl or main (its best checkpoint), or a checkpoint's directory.

    Rules: the bundle's bytes and its chain verify, nothing in the chain went on in spite of a mismatch, every video
    plays, the exact lower bound of the success rate reaches --min-success, and against the champion, on the same seeds
    and settings, --require holds; the champion is evaluated again where that takes it. Both allow for everything that
    was evaluated at this task since the champion took its place: whatever is promoted, and however it is named, it
    could have been picked from all of that. What the rules saw is stored with the version. Exit code 3: refused, or
    overtaken by another promotion; a refused one registers nothing.
    """
    with verb_session():
        if rollback:
            with preflight() as findings:
                findings.add(check_output(output))
                registry = check_rollback(findings, subject=subject, name=name)
            roll_back(registry, output, dry_run=dry_run)
            return
        with preflight() as findings:
            findings.add(check_output(output))
            job = check(
                findings,
                subject=subject,
                name=name,
                min_success=min_success,
                require=require,
                margin=margin,
                alpha=alpha,
                dry_run=dry_run,
            )
        assert job is not None
        if not run(job, output):
            raise SystemExit(PromotionRefused.exit_code)


def check(
    findings: Findings,
    *,
    subject: str,
    name: str = NAME,
    min_success: str = "0.5",
    require: str = "better",
    margin: str = "0.1",
    alpha: str = "0.05",
    dry_run: bool = False,
) -> PromoteJob | None:
    """Check these options and find the candidate; None where `findings` has errors."""
    from mlflow_project.promotion.candidate import find_candidate
    from mlflow_project.promotion.gate import Demands
    from mlflow_project.tracking.store import existing_store

    demands = Demands(
        _number(findings, "--min-success", min_success, 0, 1),
        cast("Require", require),
        _number(findings, "--margin", margin, 0, 1),
        _number(findings, "--alpha", alpha, 0, 0.5, inside=True),
    )
    _check_name(findings, name)
    if subject == "none":
        cause = "there is no SUBJECT to promote"
        findings.add([Problem("nothing-to-promote", cause, "name a run or a checkpoint's directory, or --rollback")])
        return None
    with findings.collect():
        candidate = find_candidate(existing_store(), subject)
        return None if findings.errors else PromoteJob(candidate, demands, name, dry_run)
    return None


def run(job: PromoteJob, output: Path) -> bool:
    """Judge and, where every rule lets it pass, promote, in a tracked run; prints the verdict and what each rule says.

    Returns:
        whether the candidate is (with `PromoteJob.dry_run`: could become) the champion now.
    """
    from mlflow_project.cli._summary import print_rulings
    from mlflow_project.lineage.provenance import provenance_tags
    from mlflow_project.promotion.judge import EVIDENCE, judge_candidate, register
    from mlflow_project.promotion.registry import CHAMPION, Registry
    from mlflow_project.tracking.runs import tracked_run
    from mlflow_project.tracking.store import existing_store

    client, candidate = existing_store(), job.candidate
    registry = Registry(client, job.name)
    champion = registry.aliased(CHAMPION)
    if champion is not None and champion.digest == candidate.digest:
        if not job.dry_run:
            registry.finish(champion)
        stdout.print(f"Version {champion.number} of {job.name} is this checkpoint, and is champion already.")
        _print_serve(job.name)
        return True
    title = f"promote step {candidate.evaluation.step} to {job.name}"
    with tracked_run("promote", output=output, name=title, tags=provenance_tags(PROJECT)) as tracked:
        opponent = _opponent(client, registry, champion, candidate, tracked, output) if champion else None
        judgement = judge_candidate(client, registry, candidate, job.demands, opponent)
        tracked.recorder.tags(judgement.tags())
        tracked.recorder.text(EVIDENCE, judgement.text)
        print_rulings(judgement)
        outcome, version = "refused", None
        if judgement.passed and job.dry_run:
            outcome = "would be promoted"
        elif judgement.passed:
            try:
                version = register(client, registry, judgement, _run_id(tracked))
                outcome = "promoted"
            except PromotionRefused as error:
                outcome = "overtaken"
                stdout.print(str(error))
        tracked.recorder.tags({"promotion.outcome": outcome, "promotion.model": job.name})
        if version is not None:
            tracked.recorder.tags({"promotion.version": version.number})
    if outcome == "would be promoted":
        stdout.print(f"Dry run: the checkpoint would become champion of {job.name}; nothing was registered.")
    elif version is not None:
        was = f"version {champion.number} is now `previous`" if champion else "there was none before"
        stdout.print(f"Promoted: version {version.number} of {job.name} is the champion; {was}.")
        _print_serve(job.name)
    return outcome in ("promoted", "would be promoted")


def check_rollback(findings: Findings, *, subject: str, name: str) -> Registry | None:
    """The registry to roll back; None where `findings` has errors."""
    from mlflow_project.promotion.registry import Registry
    from mlflow_project.tracking.store import existing_store

    _check_name(findings, name)
    if subject != "none":
        cause = f"--rollback goes back to `previous`, whatever SUBJECT ({subject}) is"
        findings.add([Problem("rollback-subject", cause, "leave SUBJECT out, and name the model with --name")])
    with findings.collect():
        return Registry(existing_store(), name)
    return None


def roll_back(registry: Registry | None, output: Path, *, dry_run: bool = False) -> None:
    """Make the previous champion champion again, in a tracked run.

    Raises:
        PromotionRefused: there is none.
    """
    from mlflow_project.lineage.provenance import provenance_tags
    from mlflow_project.promotion.registry import CHAMPION, PREVIOUS, now
    from mlflow_project.tracking.runs import tracked_run

    assert registry is not None
    if dry_run:
        champion, previous = registry.aliased(CHAMPION), registry.aliased(PREVIOUS)
        numbers = (each.number if each else "none" for each in (champion, previous))
        stdout.print(
            "Champion of {} is version {}, previous is {}; nothing was changed.".format(registry.name, *numbers)
        )
        return
    with tracked_run(
        "promote", output=output, name=f"roll back {registry.name}", tags=provenance_tags(PROJECT)
    ) as tracked:
        tags = {"rollback.time": now(), "rollback.run": _run_id(tracked)}
        was, champion = registry.rollback(tags)
        tracked.recorder.tags(
            {"promotion.outcome": "rolled back", "promotion.model": registry.name, "promotion.version": champion.number}
        )
    stdout.print(
        f"Version {champion.number} of {registry.name} is champion again; version {was.number} was taken back."
    )
    _print_serve(registry.name)


def _opponent(
    client: MlflowClient, registry: Registry, champion: Version, candidate: Candidate, tracked: TrackedRun, output: Path
) -> Opponent:
    """The champion's episodes on the candidate's seeds and settings: those of the store, or played now."""
    from mlflow_project.cli import eval as evaluation
    from mlflow_project.promotion.candidate import settings_of
    from mlflow_project.promotion.judge import Opponent, champion_evaluation
    from mlflow_project.serving.resolve import resolve_model
    from rlinf_isaac.preflight import Findings

    if known := champion_evaluation(client, champion, candidate.evaluation):
        return Opponent(champion, known)
    stdout.print(f"The champion, version {champion.number}, is evaluated on the candidate's seeds and settings.")
    findings = Findings()
    try:
        bundle = resolve_model(f"models:/{registry.name}/{champion.number}")
        job = evaluation.plan(findings, [bundle], settings_of(client, candidate.evaluation), output)
        findings.raise_errors()
        assert job is not None
        comparison = evaluation.run(job, output, "none")
    except InvalidJob as error:
        return Opponent(champion, None, "; ".join(f"[{each.code}] {each.cause}" for each in error.problems))
    found = comparison.standings[0].evaluation
    ids = tracked.uploader.ids(local_run(found.run) or found.run)
    return Opponent(champion, replace(found, run=ids[0] if ids else found.run), anew=True)


def _print_serve(name: str) -> None:
    stdout.print(f"serve it       rlinf-isaac serve models:/{name}@champion")


def _run_id(tracked: TrackedRun) -> str:
    """MLflow's id of the run.

    Raises:
        PromotionRefused: the store does not answer; a registry that cannot be read is not written either.
    """
    from mlflow_project.tracking.redact import without_credentials

    ids = tracked.ids()
    if ids is None:
        uri = without_credentials(tracked.tracking_uri)
        raise PromotionRefused(f"{uri} does not take the run of this promotion; nothing was registered")
    return ids[0]


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
