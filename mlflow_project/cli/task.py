"""`task`: begin the file that describes a task, or show one."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stdout, verb_session
from rlinf_isaac.ground.errors import InvalidJob

EXAMPLE = """\b
Example:
  rlinf-isaac task init --dataset /data/folding --output folding.yaml
  rlinf-isaac doctor --dataset /data/folding --task folding.yaml
  rlinf-isaac task show folding.yaml
  rlinf-isaac task list
  mlflow run . -e task -P action=init -P dataset=/data/folding -P output=/data/folding.yaml"""


@click.command("task", epilog=EXAMPLE)
@click.argument("action", type=click.Choice(["init", "show", "list"]))
@click.argument("name", default="none")
@options.option("--dataset", "init: LeRobot dataset whose robot is described: its directory, or a repo id.", "none")
@options.repo_id
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("task.yaml"),
    show_default=True,
    help="init: the file that is written; it must not exist.",
)
def command(action: str, name: str, dataset: str, repo_id: str, output: Path) -> None:
    """Describe a task in a file, for --task of the other verbs; docs/tasks.md explains the file.

    init: write what the dataset's own features say: cameras, state, actions, rate and prompt, with comments on what a
    person has to decide. show: print the description of the task NAME, or of a YAML file, its digest, and where it
    comes from. list: the tasks of this project and of other packages.
    """
    with verb_session():
        if action == "init":
            _init(dataset, repo_id, output)
        elif action == "list":
            _list()
        elif name == "none":
            raise InvalidJob.of("no-task", "there is no NAME of a task to show", "name one, or a YAML file")
        else:
            _show(name)


def _init(dataset: str, repo_id: str, output: Path) -> None:
    from rlinf_isaac.jobs.task import check

    with preflight() as findings:
        draft = check(findings, dataset=dataset, repo_id=repo_id, output=output)
    assert draft is not None
    draft.write()
    words = ["rlinf-isaac", "doctor", "--dataset", str(draft.root), "--task", str(output)]
    stdout.print(f"task         {output}")
    stdout.print(f"check        {shlex.join(words)}")


def _show(name: str) -> None:
    import yaml

    from rlinf_isaac.tasks.registry import find_task, origin_of
    from rlinf_isaac.tasks.suite import find_suite

    if (suite := find_suite(name)) is not None:
        stdout.print(f"suite        {suite.name}\nstatistics   {suite.statistics}", lines=True)
        for each in suite.tasks:
            stdout.print(f"task         {each.name} (sha256 {each.digest})", lines=True)
        return
    task = find_task(name)
    text = yaml.safe_dump(task.as_dict(), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    stdout.print(f"task         {task.name}\norigin       {origin_of(name)}\nsha256       {task.digest}\n", lines=True)
    stdout.print(text.rstrip(), lines=True, soft_wrap=True)


def _list() -> None:
    from rlinf_isaac.tasks.registry import origin_of, task_names
    from rlinf_isaac.tasks.suite import find_suite, suite_names

    names = task_names()
    width = max(map(len, names))
    for name in names:
        stdout.print(f"{name:<{width}}  {origin_of(name)}")
    for name in suite_names():
        suite = find_suite(name)
        assert suite is not None
        stdout.print(f"{name:<{width}}  this project, {len(suite.tasks)} tasks of one policy")
