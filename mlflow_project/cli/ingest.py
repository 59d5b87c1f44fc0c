"""`ingest`: what RLinf or another tool has written, whoever started it, as runs."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stdout, verb_session
from mlflow_project.vocabulary import COMPARISON_PAGE
from rlinf_isaac.ground.probe import check_output
from rlinf_isaac.jobs.ingest import check, check_foreign
from rlinf_isaac.jobs.options import NONE

EXAMPLE = """\b
Example:
  rlinf-isaac ingest --source /results/isaaclab_ppo_openpi_pi05
  rlinf-isaac ingest --source outputs/eval/act_pusht/eval_info.json
  rlinf-isaac ingest --source wandb_export.csv --episodes 64
  mlflow run . -e ingest -P source=/results/isaaclab_ppo_openpi_pi05"""


@click.command("ingest", epilog=EXAMPLE)
@options.option(
    "--source",
    "Directory that was RLinf's runner.logger.log_path, or a file of lerobot, vla-eval, W&B, ..., or a table.",
    None,
)
@options.option("--format", "rlinf, lerobot, vla-eval, arena, robomimic, table or wandb; auto looks at it.", "auto")
@options.option("--episodes", "Number of episodes behind each success rate that stands without one.", NONE)
@options.option("--policy", "Name of the policy, where the source has none.", NONE)
@options.option("--task", "Name of the task, where the source has none.", NONE)
@options.option("--first-seed", "Seed of the first episode of each task, where the source leaves seeds out.", NONE)
@options.output
@options.tracking
def command(source: str, format: str, episodes: str, policy: str, task: str, first_seed: str, output: Path) -> None:
    """Record what RLinf or another tool left: metrics, config, videos, and a nested run per checkpoint or policy.

    Of RLinf, metrics keep their names; their steps become global steps, as in the names of its checkpoints. Weights
    stay where they are; the command that makes a bundle of each is printed, and is the description of its run. Of other
    tools the episodes become tables that `compare` reads. A source that is in the store already, unchanged, is not
    recorded again.
    """
    with verb_session():
        with preflight() as findings:
            findings.add(check_output(output))
            kind, foreign = check_foreign(
                findings,
                source=source,
                format=format,
                episodes=episodes,
                policy=policy,
                task=task,
                first_seed=first_seed,
            )
            results = check(findings, source=source) if kind == "rlinf" else None
        from mlflow_project.cli._summary import print_comparison, print_links
        from mlflow_project.tracked import ingest as tracked

        if foreign is not None:
            if swept := tracked.run_foreign(foreign, output, stdout.print):
                print_comparison(swept.comparison)
                print_links(swept.run, COMPARISON_PAGE)
            return
        assert results is not None
        if run := tracked.run(results, output, stdout.print):
            print_links(run)
