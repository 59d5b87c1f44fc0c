"""`rl`: reinforcement learning of the flow policy from one or several checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli import _types as types
from mlflow_project.cli._command import JobCommand
from mlflow_project.cli._followers import Followers, followers
from mlflow_project.cli._session import preflight, stdout, verb_session
from rlinf_isaac.engines.local.training.torchrun import launch
from rlinf_isaac.jobs import rl as planned
from rlinf_isaac.jobs.engine import chosen_engine

if TYPE_CHECKING:
    from rlinf_isaac.engines.base import RlJob
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac rl --ckpt-root result/isaaclab_openpi/sft/tiny-0123abcd/checkpoints --ckpt-steps 800
  mlflow run . -e rl -P ckpt_root=/results/checkpoints -P ckpt_steps=25000,30000"""


@click.command("rl", cls=JobCommand, keys=planned.KEYS, epilog=EXAMPLE)
@options.ckpt_root
@options.ckpt_steps("start from")
@options.option("--preset", "Preset whose section rl is used; auto: the one of the training.", type=types.PRESET)
@options.option("--algorithm", "ppo or grpo.")
@options.option("--exploration", "flow_sde or flow_noise.")
@options.option("--reward", "success, or shaped: more for each subtask that is reached.")
@options.option("--iterations", "Rounds of rollouts and update.")
@options.option("--lr", "Learning rate of the policy.")
@options.option("--seed", "Seed of rollouts, noise and minibatches.")
@options.option("--workers", "Processes that play the episodes.")
@options.option("--eval-episodes", "Held-out episodes on which start and result are compared.")
@options.assume
@options.task
@options.env
@options.env_python
@options.renderer
@options.device
@options.engine
@options.upload_weights
@followers
@options.output
@options.overrides
@options.tracking
def command(output: Path, upload_weights: options.UploadWeights, followers: Followers, **settings: Any) -> None:
    """Improve checkpoints by PPO or GRPO: a parent run, one nested run per start checkpoint.

    The nested runs differ in nothing but the checkpoint. Each ends with an evaluation of its start and its result on
    the same seeds, which never trained, so that before and after are paired. The same command continues an interrupted
    run, with the same result as an undisturbed one.
    """
    if (place := launch()) is not None:
        stdout.quiet = not place.first
    with verb_session():
        with preflight() as findings:
            followers.check(findings)
            jobs = check(findings, output=output, **settings)
        from mlflow_project.cli._summary import print_gains, print_links
        from mlflow_project.tracked import rl as tracked

        if place is not None and not place.first:
            tracked.train_with_others(jobs, chosen_engine(settings))
            return
        with followers.at_work():
            gained = tracked.run(jobs, output, upload_weights, chosen_engine(settings), stdout.print)
        print_gains(gained.improved)
        print_links(gained.run)


def check(findings: Findings, **settings: Any) -> list[RlJob]:
    """`rlinf_isaac.jobs.rl.check`; the checkpoints may also be those of a model or a run of MLflow."""
    from mlflow_project.serving.ckpt_root import locate_checkpoints

    return planned.check(findings, locate=locate_checkpoints, **settings)
