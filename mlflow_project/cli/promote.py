"""`promote`: the best checkpoint of a sweep becomes the champion of the model registry, if it passes the gate."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stdout, verb_session
from rlinf_isaac.ground.errors import PromotionRefused
from rlinf_isaac.ground.probe import check_output

EXAMPLE = """\b
Example:
  rlinf-isaac promote 0123456789abcdef0123456789abcdef --min-success 0.8
  rlinf-isaac promote CHECKPOINTS/1200 --require not-worse --margin 0.1 --dry-run
  rlinf-isaac promote --rollback --name stack-cube
  mlflow run . -e promote -P subject=RUN_ID"""


@click.command("promote", epilog=EXAMPLE)
@click.argument("subject", default="none")
@options.option("--name", "Registered model; auto: stack-cube, or the name of another task.")
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
@options.flag(
    "--every-task",
    "Of several tasks: also in each of them, --min-success, and not worse than the champion by --margin or more.",
)
@click.option(
    "--training-seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Trainings of the candidate's recipe and of the champion's that --arm names; from 2 on recipes are compared.",
)
@options.arms("With --training-seeds: candidate=RUN,... and champion=RUN,..., the evaluations of their trainings.")
@options.flag("--dry-run", "Judge, and change nothing in the registry.")
@options.flag("--rollback", "Make the previous champion champion again. Takes no SUBJECT.")
@options.output
@options.tracking
def command(
    subject: str,
    name: str,
    min_success: str,
    require: str,
    margin: str,
    alpha: str,
    every_task: bool,
    training_seeds: int,
    arm: tuple[str, ...],
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
        from mlflow_project.cli._summary import print_promotion, print_serve, show
        from mlflow_project.promotion.registry import CHAMPION, PREVIOUS
        from mlflow_project.tracked import promote as tracked

        if rollback:
            with preflight() as findings:
                findings.add(check_output(output))
                registry = tracked.check_rollback(findings, subject=subject, name=name)
            assert registry is not None
            if dry_run:
                versions = (registry.aliased(alias) for alias in (CHAMPION, PREVIOUS))
                numbers = (version.number if version else "none" for version in versions)
                told = "Champion of {} is version {}, previous is {}; nothing was changed."
                stdout.print(told.format(registry.name, *numbers))
                return
            was, champion = tracked.roll_back(registry, output)
            told = (
                f"Version {champion.number} of {registry.name} is champion again; version {was.number} was taken back."
            )
            stdout.print(told)
            print_serve(registry.name)
            return
        with preflight() as findings:
            findings.add(check_output(output))
            job = tracked.check(
                findings,
                subject=subject,
                name=name,
                min_success=min_success,
                require=require,
                margin=margin,
                alpha=alpha,
                every_task=every_task,
                training_seeds=training_seeds,
                arm=arm,
                dry_run=dry_run,
            )
        assert job is not None
        promotion = tracked.run(job, output, stdout.print, show)
        print_promotion(promotion, job.name)
        if not promotion.passed:
            raise SystemExit(PromotionRefused.exit_code)
