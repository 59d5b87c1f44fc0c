"""`doctor`: everything that would keep a job from starting, found in seconds without starting it."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from mlflow_project.cli import _doctor_env
from mlflow_project.cli import _options as options
from mlflow_project.cli._findings import grouped
from mlflow_project.cli._followers import Followers
from mlflow_project.cli._session import checking, print_json, print_wide, show_problem, stdout, verb_session
from mlflow_project.tracking.runs import fail_adopted_run
from mlflow_project.tracking.terminal import escaped
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.jobs.options import find_dataset
from rlinf_isaac.preflight.findings import Findings

if TYPE_CHECKING:
    from rlinf_isaac.config.schema import JobConfig

EXAMPLE = """\b
Example:
  rlinf-isaac doctor
  rlinf-isaac doctor --dataset /data/generated_simdata_full
  rlinf-isaac doctor --dataset /data/folding --task folding.yaml
  rlinf-isaac doctor --preset mine.yaml
  rlinf-isaac doctor sft --dataset /data/generated_simdata_full --preset pi05
  rlinf-isaac doctor env --task folding.yaml --dataset /data/folding
  rlinf-isaac doctor eval --ckpt-root /results/checkpoints --ckpt-steps 25000,30000
  mlflow run . -e doctor -P job="eval --ckpt-root /results/checkpoints\""""

JOBS = ("main", "demos", "sft", "eval", "rl")
"""Verbs whose options doctor takes: their modules have a ``check``."""


class DoctorCommand(click.Command):
    """Takes the switches wherever they stand; what follows the name of a job belongs to the job."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move ``--json`` and ``--full``, with or without a value, to the front."""
        switches, others = [], []
        for position, word in enumerate(args):
            if word in ("--json", "--full"):
                value = args[position + 1 : position + 2]
                switches.append(f"{word}={value[0] if value in (['true'], ['false']) else 'true'}")
            elif not (word in ("true", "false") and args[position - 1] in ("--json", "--full")):
                others.append(word)
        return super().parse_args(ctx, switches + others)


@click.command("doctor", epilog=EXAMPLE, cls=DoctorCommand, context_settings={"allow_interspersed_args": False})
@options.option("--dataset", "LeRobot dataset to check in depth: its directory, or a repo id.", "none")
@options.repo_id
@options.flag("--full", "Decode every image and video of the dataset, not a sample.")
@options.option(
    "--preset", "Preset to check on this machine; with --dataset what that must suit, none: any task and state.", "none"
)
@options.task
@options.flag("--json", "Print one JSON object instead of text.")
@click.argument("job", nargs=-1, type=click.UNPROCESSED)
def command(dataset: str, repo_id: str, full: bool, preset: str, task: str, json: bool, job: tuple[str, ...]) -> None:
    """Check a planned job, a dataset, a task, a preset, or this machine. Starts and writes nothing, imports no torch.

    JOB is a verb (main, demos, sft, eval, rl) with its own options: exactly the checks it runs first, except that large
    files are not hashed. Each finding has a stable code, a cause and a cure. Exit code 2 when there are errors.

    The word env in place of a job does start something: it plays in the environment of a task, and checks what it
    does. `doctor env --help` has its options.
    """
    with verb_session():
        findings = Findings()
        report: dict[str, Any] = {}
        words = _words(job)
        planned = words and words != ["none"]
        if planned:
            report["job"] = words
            if words[0] == _doctor_env.WORD:
                report |= _doctor_env.inspect_env(findings, words[1:], as_json=json)
            else:
                check_job(findings, words)
        if dataset != "none":
            report["dataset"] = dataset
            report |= inspect_dataset(findings, dataset, repo_id, preset, task, full)
        elif preset != "none" or task != options.AUTO:
            report |= inspect_preset(findings, preset, task)
        if not planned and dataset == "none" and task == options.AUTO:
            report |= inspect_machine(findings)
        show(findings, report, as_json=json)
        if findings.errors:
            fail_adopted_run(str(InvalidJob(findings.errors)))
            raise SystemExit(2)


def _words(job: Sequence[str]) -> list[str]:
    """The words of a job, which MLproject passes as one."""
    try:
        return shlex.split(job[0]) if len(job) == 1 else list(job)
    except ValueError as error:
        raise click.UsageError(f"the job {job[0]!r} is no command line: {error}") from error


def check_job(findings: Findings, words: Sequence[str]) -> None:
    """Run the checks of a verb with its options, as they stand on the command line."""
    verb, *arguments = words
    if verb not in JOBS:
        raise click.UsageError(f"doctor checks the jobs {', '.join(JOBS)}, and {_doctor_env.WORD}; not {verb!r}")
    module = importlib.import_module(f"mlflow_project.cli.{verb}")
    context = module.command.make_context(verb, list(arguments))
    params = dict(context.params)
    if "notify" in params:
        Followers(params.pop("notify"), params.pop("report_to")).check(findings)
    with checking(findings):
        module.check(findings, quick=True, **params)


def inspect_dataset(findings: Findings, name: str, repo_id: str, preset: str, task: str, full: bool) -> dict[str, Any]:
    """Check a dataset on its own, and against a preset and a task, or whatever this project can do with it."""
    from rlinf_isaac.config.suite import single
    from rlinf_isaac.data.validate.dataset import validate_dataset
    from rlinf_isaac.preflight.dataset import check_dataset, suitable_job

    with checking(findings):
        root = find_dataset(name, repo_id)
        findings.add(validate_dataset(root, full=full))
        if preset != "none" or task != options.AUTO:
            config = single(planned_config(preset, task))
            findings.add(check_dataset(config, root))
            return {"root": str(root)} | ({"task": config.env.task} if task != options.AUTO else {})
        suitable, layout, problems = suitable_job(root)
        findings.add(problems)
        return {"root": str(root), "task": suitable, "state_layout": layout}
    return {}


def planned_config(preset: str, task: str) -> JobConfig:
    """The preset, or the smallest one, with the task.

    Raises:
        InvalidJob: there is no such preset or task, or it is wrong.
    """
    from rlinf_isaac.config import load_config

    return load_config("tiny" if preset == "none" else preset, [] if task == options.AUTO else [f"env.task={task}"])


def inspect_preset(findings: Findings, preset: str, task: str) -> dict[str, Any]:
    """Check the values of a preset or task, and whether this machine has what they ask for."""
    from rlinf_isaac.config.task import task_of
    from rlinf_isaac.preflight import check_config, check_device, check_simulator

    report = {"preset": preset} if preset != "none" else {}
    with checking(findings):
        config = planned_config(preset, task)
        report |= {"task": config.env.task} if task != options.AUTO else {}
        plays = task_of(config).env is not None
        form = "main" if plays else "sft"
        findings.add([*check_config(config, form), *check_device(config, form)])
        findings.add(check_simulator(config) if plays else ())
    return report


def inspect_machine(findings: Findings) -> dict[str, Any]:
    """Check this machine and interpreter."""
    from rlinf_isaac.preflight.environment import inspect_environment

    components, problems = inspect_environment()
    findings.add(problems)
    return {"environment": [asdict(component) for component in components]}


def show(findings: Findings, report: dict[str, Any], *, as_json: bool) -> None:
    """Print what was looked at and what was found."""
    if as_json:
        problems = [asdict(problem) for problem in findings.problems]
        print_json({"ok": not findings.errors, "problems": problems, **report})
        return
    if components := report.get("environment"):
        table = Table(title="This machine", title_justify="left")
        for column in ("component", "found", "unlocks"):
            table.add_column(column)
        for each in components:
            missing = Text("missing", "bold red") if each["needed"] else Text(f"none; {each['cure']}", "dim")
            table.add_row(each["name"], each["found"] or missing, each["unlocks"])
        print_wide(table)
    for key in ("root", "task", "state_layout", "preset"):
        if key in report:
            stdout.print(f"{key:<13}{report[key]}")
    for problem in grouped(findings.problems):
        show_problem(problem, stdout)
    named = next((report[key] for key in ("dataset", "preset", "task") if key in report), "this machine")
    what = " ".join(report.get("job") or [named])
    verdict = ("no", "bold red") if findings.errors else ("yes", "bold green")
    counts = f"{_number(findings.errors, 'error')}, {_number(findings.warnings, 'warning')}"
    stdout.print(Text.assemble("ready        ", verdict, f"  {counts}  {escaped(what)}"))


def _number(problems: Sequence[Problem], noun: str) -> str:
    return f"{len(problems)} {noun}{'' if len(problems) == 1 else 's'}"
