"""`norm_stats`: compute the norm stats of a dataset, check a file, or canonicalise one whose keys are not OpenPI's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, preflight, show_problem, stdout, verb_session
from mlflow_project.tracking.terminal import SafeConsole
from mlflow_project.vocabulary import lineage_tag
from rlinf_isaac.config import load_config
from rlinf_isaac.config.reads import check_overrides
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import InvalidJob, NormStatsError, Problem
from rlinf_isaac.ground.probe import check_output
from rlinf_isaac.preflight.norm_stats import PROVENANCE_FILE, read_provenance

if TYPE_CHECKING:
    from rlinf_isaac.data.norm_stats import Settings
    from rlinf_isaac.data.norm_stats.check import NormStatsReport
    from rlinf_isaac.data.norm_stats.keys import Mode

EXAMPLE = """\b
Example:
  rlinf-isaac norm_stats --dataset result/isaaclab_openpi/demos/stack2-0123abcd
  rlinf-isaac norm_stats --check norm_stats.json --dataset /data/generated_simdata_full --preset pi05
  rlinf-isaac norm_stats --canonicalise norm_stats.json --norm-stats-mode canonical
  mlflow run . -e norm_stats -P dataset=/data/generated_simdata_full -P preset=pi05"""

NONE = "none"
READS = ("state", "actions", "rate")
"""What of a dataset concerns its statistics: neither its cameras nor its prompts."""
MODES = ("canonical", "identity")
TABLE_WIDTH = 130  # at least, in characters


@click.command("norm_stats", epilog=EXAMPLE)
@options.option("--dataset", "LeRobot dataset: its directory, or a repo id under HF_LEROBOT_HOME.", NONE)
@options.repo_id
@options.option("--check", "Check this norm_stats.json, on rows of --dataset if given. Writes nothing.", NONE)
@options.option("--canonicalise", "Give this norm_stats.json OpenPI's keys; the record can undo it.", NONE)
@click.option(
    "--norm-stats-mode",
    type=click.Choice([*MODES, NONE]),
    default=NONE,
    show_default=True,
    help="With --canonicalise: canonical renames; identity is for weights trained while the file had no effect.",
)
@options.preset
@options.allow_other_data
@options.output
@options.overrides
def command(
    dataset: str,
    repo_id: str,
    check: str,
    canonicalise: str,
    norm_stats_mode: str,
    preset: str,
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
        changes = options.to_overrides({}, {}, overrides)
        if canonicalise != NONE:
            with preflight() as findings:
                findings.add(check_overrides("norm_stats --canonicalise", changes))
                findings.add(check_output(output))
            stdout.print(f"norm stats  {run_canonicalise(Path(canonicalise), _mode(norm_stats_mode), output)}")
            return
        from rlinf_isaac.preflight import check_config, check_dataset
        from rlinf_isaac.preflight.dataset import allowed

        with preflight() as findings:
            form = "norm_stats"
            if check != NONE:
                form = "norm_stats --check" if dataset == NONE else "norm_stats --check --dataset"
            findings.add(check_overrides(form, changes))
            config = load_config(preset, changes)
            findings.add(check_config(config, form, changes))
            findings.raise_errors()
            root = None if dataset == NONE else options.find_dataset(dataset, repo_id)
            if check == NONE and root is None:
                cure = "pass --dataset to compute norm stats, or --check FILE, or --canonicalise FILE"
                raise InvalidJob.of("no-dataset", "there is no --dataset", cure)
            if check == NONE and root is not None:
                findings.add(check_output(output))
                findings.add(check_dataset(config, root, READS, allow=allow_mismatch))
        if check != NONE:
            show(check_file(config, Path(check), root))
        else:
            assert root is not None
            stdout.print(f"norm stats  {run(config, root, output, allowed(findings.problems))}")


def run(config: JobConfig, dataset_root: Path, output: Path, allowed: Sequence[Problem] = ()) -> Path:
    """Compute the stats and record them as one tracked run; returns the file.

    The file's directory is named by the dataset's digest and the settings, and ``provenance.json`` in it says the same.
    The run is tagged with the differences between dataset and task that are `allowed`.

    Raises:
        NormStatsError: the dataset has no statistics: too few frames, or values that are not finite.
    """
    from mlflow_project.comparison.evaluations import mismatch_tags
    from mlflow_project.lineage.provenance import lerobot_dataset, provenance_tags
    from mlflow_project.tracking.runs import tracked_run
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset
    from rlinf_isaac.data.norm_stats import compute_norm_stats, settings_of

    settings = settings_of(config)
    dataset = LeRobotDataset(dataset_root)
    stats = compute_norm_stats(dataset, **settings)
    name, tags = f"norm_stats {dataset_root.name}", provenance_tags(PROJECT) | mismatch_tags(allowed)
    with tracked_run("norm_stats", output=output, name=name, tags=tags) as tracked:
        provenance = {"dataset": dataset.digest, **settings, "norm_stats": stats.digest}
        directory = output.absolute() / "norm_stats" / f"{dataset.digest[:12]}-{_suffix(settings)}"
        _write(directory, stats.to_json().encode(), provenance)
        tracked.recorder.params({"norm_stats": dict(settings)})
        tracked.recorder.dataset(lerobot_dataset(dataset_root, dataset.digest, "norm-stats"))
        tracked.recorder.tags({lineage_tag("norm_stats"): stats.digest})
        tracked.recorder.artifact(directory)
    return directory / "norm_stats.json"


def check_file(config: JobConfig, path: Path, dataset_root: Path | None) -> NormStatsReport:
    """The report on a ``norm_stats.json`` for the policy of `config`, on real rows where there is a dataset."""
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset
    from rlinf_isaac.data.norm_stats import settings_of
    from rlinf_isaac.data.norm_stats.check import check_norm_stats_file
    from rlinf_isaac.preflight.norm_stats import policy_of

    return check_norm_stats_file(
        path,
        None if dataset_root is None else LeRobotDataset(dataset_root),
        **policy_of(config),
        settings=None if dataset_root is None else settings_of(config),
    )


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


def run_canonicalise(path: Path, mode: Mode, output: Path) -> Path:
    """Write the canonical form of `path` as one tracked run; returns the new file.

    Its directory is named by the source's digest and the mode. What ``provenance.json`` beside the source says of it is
    carried over; ``canonicalised`` in the new one is the record that undoes the change.

    Raises:
        NormStatsError: the file cannot be canonicalised so.
    """
    from mlflow_project.lineage.provenance import provenance_tags
    from mlflow_project.tracking.runs import tracked_run
    from rlinf_isaac.data.norm_stats.keys import canonicalise
    from rlinf_isaac.data.norm_stats.parse import read_bytes

    result = canonicalise(read_bytes(path), mode, str(path))
    source, changed = result.record["source_sha256"], result.record["norm_stats_sha256"]
    provenance = {**_provenance_of(path, source), "norm_stats": changed, "canonicalised": result.record}
    with tracked_run("norm_stats", output=output, name=f"norm_stats {mode}", tags=provenance_tags(PROJECT)) as tracked:
        directory = output.absolute() / "norm_stats" / f"{source[:12]}-{mode}"
        _write(directory, result.data, provenance)
        tracked.recorder.params({"norm_stats": {"mode": mode}})
        tracked.recorder.tags({lineage_tag("norm_stats"): changed, "lineage.norm_stats.source_sha256": source})
        tracked.recorder.artifact(directory)
    for old, new in result.record["keys"].items():
        stdout.print(f"{old} -> {new}" + (" (identity)" if new in result.record["identity"] else ""))
    for key in result.record["dropped"]:
        stdout.print(f"{key} dropped")
    return directory / "norm_stats.json"


def _mode(text: str) -> Mode:
    from rlinf_isaac.data.norm_stats.keys import CHOICE, Mode

    if text in get_args(Mode):
        return text  # type: ignore[return-value]
    raise NormStatsError.of("norm-stats-mode", "--canonicalise needs --norm-stats-mode canonical or identity", CHOICE)


def _suffix(settings: Settings) -> str:
    """The settings within a directory's name, where a comma would separate paths."""
    delta = settings["delta_actions"]
    parts = [f"h{settings['action_horizon']}", f"b{settings['batch_size']}"]
    return "-".join(parts if delta == NONE else [*parts, "d" + delta.replace(",", "_")])


def _provenance_of(path: Path, digest: str) -> dict[str, Any]:
    """What ``provenance.json`` beside a ``norm_stats.json`` says, if it is of these bytes."""
    provenance = read_provenance(path.parent)
    return provenance if provenance.get("norm_stats") == digest else {}


def _write(directory: Path, norm_stats: bytes, provenance: dict[str, Any]) -> None:
    from rlinf_isaac.ground.atomic import new_directory

    with new_directory(directory, replace=True) as temporary:
        (temporary / "norm_stats.json").write_bytes(norm_stats)
        (temporary / PROVENANCE_FILE).write_text(json.dumps(provenance, indent=2))
