"""`norm_stats`: compute the norm stats of a dataset, check a file, or canonicalise one whose keys are not OpenPI's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from mlflow_project.cli import _options as options
from mlflow_project.cli import _types as types
from mlflow_project.cli._session import preflight, show_problem, stdout, verb_session
from mlflow_project.tracking.terminal import SafeConsole
from rlinf_isaac.ground.errors import InvalidJob, NormStatsError
from rlinf_isaac.jobs import norm_stats as jobs
from rlinf_isaac.jobs.options import NONE

if TYPE_CHECKING:
    from rlinf_isaac.data.norm_stats.check import NormStatsReport

EXAMPLE = """\b
Example:
  rlinf-isaac norm_stats --dataset result/isaaclab_openpi/demos/stack2-0123abcd
  rlinf-isaac norm_stats --check norm_stats.json --dataset /data/generated_simdata_full --preset pi05
  rlinf-isaac norm_stats --canonicalise norm_stats.json --norm-stats-mode canonical
  mlflow run . -e norm_stats -P dataset=/data/generated_simdata_full -P preset=pi05"""

MODES = ("canonical", "identity")
TABLE_WIDTH = 130  # at least, in characters


@click.command("norm_stats", epilog=EXAMPLE)
@options.option("--dataset", "LeRobot dataset: its directory, or a repo id under HF_LEROBOT_HOME.", NONE, types.DATASET)
@options.repo_id
@options.option(
    "--check", "Check this norm_stats.json, on rows of --dataset if given. Writes nothing.", NONE, types.FILE
)
@options.option("--canonicalise", "Give this norm_stats.json OpenPI's keys; the record can undo it.", NONE)
@click.option(
    "--norm-stats-mode",
    type=click.Choice([*MODES, NONE]),
    default=NONE,
    show_default=True,
    help="With --canonicalise: canonical renames; identity is for weights trained while the file had no effect.",
)
@options.preset
@options.task
@options.allow_other_data
@options.output
@options.overrides
@options.tracking
def command(
    dataset: str,
    repo_id: str,
    check: str,
    canonicalise: str,
    norm_stats_mode: str,
    preset: str,
    task: str,
    allow_mismatch: bool,
    output: Path,
    overrides: str,
) -> None:
    """Compute norm_stats.json of a LeRobot dataset from its parquet columns, with OpenPI's semantics.

    Statistics of actions are over action chunks, clamped at the end of an episode, so the preset's action horizon
    matters, as do norm_stats.batch_size and policy.delta_actions. No image is decoded.
    """
    with verb_session():
        if check != NONE and canonicalise != NONE:
            raise InvalidJob.of("bad-options", "--check and --canonicalise are both given", "give one of them")
        if canonicalise != NONE:
            with preflight() as findings:
                jobs.check_canonicalise(findings, output=output, overrides=overrides)
            mode = jobs.mode_of(norm_stats_mode)
            from mlflow_project.tracked import norm_stats as tracked

            stdout.print(f"norm stats  {tracked.run_canonicalise(Path(canonicalise), mode, output, stdout.print)}")
            return
        with preflight() as findings:
            checked = jobs.check(
                findings,
                dataset=dataset,
                repo_id=repo_id,
                check=check,
                preset=preset,
                task=task,
                allow_mismatch=allow_mismatch,
                output=output,
                overrides=overrides,
            )
        if check != NONE:
            show(jobs.check_file(checked.config, Path(check), checked.dataset))
            return
        assert checked.dataset is not None
        from mlflow_project.tracked import norm_stats as tracked

        stdout.print(f"norm stats  {tracked.run(checked.config, checked.dataset, output, checked.allowed)}")


def show(report: NormStatsReport) -> None:
    """Print a report. Raises NormStatsError with its errors."""
    if report.dims:
        table = Table(title=str(report.path), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("dim", no_wrap=True)
        for column in ("mean", "std", "q01", "q99", "normalised"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("remark")
        for dim in report.dims:
            normalised = ""
            if dim.normalised_mean is not None and dim.normalised_std is not None:
                normalised = f"{dim.normalised_mean:z.2f} ± {dim.normalised_std:.2f}"
            numbers = ("" if value is None else f"{value:.4g}" for value in (dim.mean, dim.std, dim.q01, dim.q99))
            table.add_row(f"{dim.key} {dim.name}", *numbers, normalised, dim.remark)
        # A number that is cut off is no number: a narrow terminal wraps the lines instead.
        SafeConsole(file=stdout.file, width=max(stdout.width, TABLE_WIDTH)).print(table, soft_wrap=True)
    if report.digest:
        stdout.print(f"sha256      {report.digest}")
    if report.recomputed:
        stdout.print(f"recomputed  {report.recomputed}")
    for problem in report.problems:
        if problem.level == "warning":
            show_problem(problem)
    if report.errors:
        raise NormStatsError(report.errors)
