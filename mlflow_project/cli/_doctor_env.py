"""`doctor env`: the conformance suite for the environment of a task."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import checking, print_wide, stderr, stdout
from mlflow_project.tracking.terminal import escaped
from rlinf_isaac.preflight.findings import Findings

if TYPE_CHECKING:
    from rlinf_isaac.envs.conformance.suite import Result
    from rlinf_isaac.jobs.conformance import ConformanceJob

WORD = "env"
"""The word after `doctor`."""
COLOURS = {"ok": "green", "error": "bold red", "warning": "bold yellow", "skipped": "dim"}
EXAMPLE = """\b
Example:
  rlinf-isaac doctor env --task folding.yaml
  rlinf-isaac doctor env --task folding.yaml --dataset /data/folding --episodes 100
  rlinf-isaac doctor env --task metaworld/button-press-topdown-v3 --env-python metaworld-venv/bin/python
  mlflow run . -e doctor -P job="env --task folding.yaml\""""


@click.command("doctor env", epilog=EXAMPLE)
@options.task
@options.preset
@options.env
@options.env_python
@options.renderer
@options.option("--device", "torch device, for --env isaaclab: cpu, cuda, cuda:1.")
@options.option("--dataset", "LeRobot dataset to compare images, states, actions and rate with.", "none")
@options.repo_id
@options.option("--episodes", "Episodes of an evaluation, whose time is predicted.")
def command(**settings: Any) -> None:
    """Play in the environment of a task, and say which promises of this project it does not keep.

    Seeds, rows, chunks, time-outs, actions, cameras, success, and how long a step takes; with a dataset also whether
    images, states, actions and rate are those that a policy learns from. What was found is kept, and runs that play in
    this environment are tagged with it (env.findings). Exit code 2 when there are errors.
    """  # `inspect_env` reads the options; doctor carries it out.


def inspect_env(findings: Findings, words: Sequence[str], *, as_json: bool) -> dict[str, Any]:
    """Run the suite with these options, show each check when it is done, and return the report."""
    from rlinf_isaac.jobs.conformance import check

    begin = time.monotonic()
    report: dict[str, Any] = {}
    job = None
    context = command.make_context(f"doctor {WORD}", list(words))
    with checking(findings):
        job = check(findings, **context.params)
    if job is None:
        return report
    results = []
    with checking(findings):
        results = _run(job, findings, report)
    report["checks"] = [asdict(each) | {"problems": [each.code for each in each.problems]} for each in results]
    report["seconds"] = round(time.monotonic() - begin, 1)
    if not as_json and results:
        _show(results, report)
    return report


def _run(job: ConformanceJob, findings: Findings, report: dict[str, Any]) -> list[Result]:
    from rlinf_isaac.envs.conformance.kept import keep_findings
    from rlinf_isaac.envs.conformance.suite import run_suite
    from rlinf_isaac.jobs.conformance import bench_of

    bench = bench_of(job)
    report["task"] = job.config.env.task
    results = []
    for result in run_suite(bench):
        results.append(result)
        findings.add(result.problems)
        stderr.print(_line(result))
    report |= {"identity": bench.identity, "facts": bench.facts}
    if bench.identity:
        codes = [problem.code for each in results for problem in each.problems]
        keep_findings(bench.identity, codes, with_dataset=job.dataset is not None)
    return results


def _line(result: Result) -> Text:
    word = (f"{result.result:<8}", COLOURS[result.result])
    return Text.assemble(word, f" {result.name}: ", (escaped(result.seen), "dim"))


def _show(results: Sequence[Result], report: dict[str, Any]) -> None:
    """The table of what was checked; what was found follows it, as after every doctor."""
    table = Table(title=f"The environment of {escaped(report['task'])}", title_justify="left")
    for column in ("check", "result", "what was seen"):
        table.add_column(column)
    for each in results:
        table.add_row(each.name, Text(each.result, COLOURS[each.result]), escaped(each.seen))
    print_wide(table)
    counts = Counter(each.result for each in results)
    summary = ", ".join(f"{counts[name]} {name}" for name in COLOURS if counts[name])
    stdout.print(f"checks       {summary}; {report['seconds']:.0f} s")
