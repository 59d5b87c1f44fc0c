"""`eval`: evaluate one or several checkpoints on the same seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli import _types as types
from mlflow_project.cli._command import JobCommand
from mlflow_project.cli._followers import Followers, followers
from mlflow_project.cli._session import preflight, stdout, verb_session
from mlflow_project.vocabulary import COMPARISON_PAGE
from rlinf_isaac.jobs import evaluation as planned
from rlinf_isaac.jobs.engine import chosen_engine
from rlinf_isaac.tasks.variation import AXES

if TYPE_CHECKING:
    from rlinf_isaac.engines.base import EvaluationJob
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac eval --ckpt-root result/isaaclab_openpi/sft/tiny-0123abcd/checkpoints
  rlinf-isaac eval --ckpt-root CHECKPOINTS --until-decided --episodes 200 --batch 25
  rlinf-isaac eval --ckpt-root CHECKPOINTS --vary light,camera,mass
  rlinf-isaac eval --ckpt-root CHECKPOINTS --engine rlinf --rlinf-python rlinf-venv/bin/python
  rlinf-isaac eval --ckpt-root CHECKPOINTS --engine rlinf --ray-address head:6379 --parallel 4
  mlflow run . -e eval -P ckpt_root=/results/checkpoints -P ckpt_steps=25000,30000"""


@click.command("eval", cls=JobCommand, keys=planned.KEYS, epilog=EXAMPLE)
@options.ckpt_root
@options.ckpt_steps("evaluate")
@options.option(
    "--norm-stats", "norm_stats.json; auto: the one in the checkpoint. Any other is a mismatch.", type=types.FILE
)
@options.option("--episodes", "Episodes per checkpoint; with --until-decided at most so many.")
@options.option("--first-seed", "Reset seed of the first episode; the others follow.")
@options.option("--policy-seed", "Seed of the flow-matching noise.")
@options.option("--num-envs", "Environments that step side by side.")
@options.option("--videos", "How many episodes to record, the same ones for every checkpoint.")
@options.task
@options.env
@options.env_python
@options.renderer
@options.device
@options.flag(
    "--until-decided",
    "All checkpoints together, batch by batch, until one is better than every other (e-process, error rate 0.05) or "
    "--episodes are done.",
)
@options.option(
    "--vary",
    "Robustness: play the same seeds again along each of these axes, e.g. 'light,camera,texture,mass,delay'; "
    "docs/robustness.md.",
    type=types.words("AXES", *AXES),
)
@options.option("--batch", "Episodes per checkpoint between two looks; auto: as many as step side by side.")
@options.flag(
    "--allow-mismatch",
    "Go on although norm stats, tokenizer, prompt, action chunk, state or environment are not those of the training; "
    "the run is tagged with it and its checkpoints cannot be promoted.",
)
@options.assume
@options.engine
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --engine rlinf: checkpoints side by side, each on its own accelerator or node of the Ray cluster.",
)
@options.upload_weights
@followers
@options.output
@options.overrides
@options.tracking
def command(output: Path, upload_weights: options.UploadWeights, followers: Followers, **settings: Any) -> None:
    """Evaluate checkpoints: one parent run, one nested run per checkpoint that differs in nothing else.

    All checkpoints meet the same seeds, so their episodes are paired. Finished episodes are not repeated: after an
    interruption the same command goes on where it stopped. It ends with the comparison that `compare` makes. Before
    anything starts, weights are hashed and compared with the architecture, norm stats, tokenizer, prompt, action chunk,
    state and environment with those of the training.
    """
    with verb_session():
        with preflight() as findings:
            followers.check(findings)
            job = check(findings, output=output, **settings)
        assert job is not None
        from mlflow_project.cli._summary import print_comparison, print_links
        from mlflow_project.tracked import evaluation as tracked

        with followers.at_work():
            swept = tracked.run(job, output, upload_weights, chosen_engine(settings), stdout.print)
        print_comparison(swept.comparison)
        print_links(swept.run, COMPARISON_PAGE)


def check(findings: Findings, **settings: Any) -> EvaluationJob | None:
    """`rlinf_isaac.jobs.evaluation.check`; the checkpoints may also be those of a model or a run of MLflow."""
    from mlflow_project.serving.ckpt_root import locate_checkpoints

    return planned.check(findings, locate=locate_checkpoints, **settings)
