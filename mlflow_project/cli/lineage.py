"""`lineage`: the chain behind a number, looked at again link by link."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text
from rich.tree import Tree

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import print_json, show_problem, stdout, verb_session
from mlflow_project.tracking.runs import fail_adopted_run
from mlflow_project.tracking.terminal import escaped
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.jobs.options import find_dataset

if TYPE_CHECKING:
    from mlflow_project.lineage.chain import Node

EXAMPLE = """\b
Example:
  rlinf-isaac lineage result/isaaclab_openpi/sft/tiny-0123abcd/checkpoints/1200
  rlinf-isaac lineage m-6a1f0c2e9b7d4f53a8e1c0d2b3f4a596
  rlinf-isaac lineage models:/stack-cube@champion
  mlflow run . -e lineage -P subject=RUN_ID"""

_MARKS = {"ok": "[bold green]ok[/]", "unseen": "[yellow]unseen[/]", "broken": "[bold red]broken[/]"}


@click.command("lineage", epilog=EXAMPLE)
@click.argument("subject")
@options.option("--dataset", "Where the dataset lies; auto: where a run of this store saw it.")
@options.flag("--json", "Print one JSON object instead of a tree.")
def command(subject: str, dataset: str, json: bool) -> None:
    """Print what SUBJECT came from, and where the chain breaks.

    SUBJECT is a checkpoint's directory, a run id, a model id (m-...), models:/name/version or models:/name@alias. Files
    are hashed again and norm stats computed again, so an edit anywhere shows. Exit code 2 when a link is broken; a link
    that is recorded but not on this machine is `unseen`, which is no error.
    """
    with verb_session():
        root = None if dataset == options.AUTO else find_dataset(dataset)
        chain = find_chain(subject, root)
        breaks = chain.breaks()
        if json:
            print_json({"complete": not breaks, "chain": asdict(chain)})
        else:
            stdout.print(_tree(chain), soft_wrap=False)
            for problem in breaks:
                show_problem(problem, stdout)
            unseen = sum(node.state == "unseen" for node in chain.walk())
            stdout.print(f"{'broken' if breaks else 'complete'}: {len(breaks)} breaks, {unseen} links not seen")
        if breaks:
            fail_adopted_run(str(InvalidJob(breaks)))
            raise SystemExit(2)


def find_chain(subject: str, dataset: Path | None = None) -> Node:
    """The chain of a bundle's directory, or of what the MLflow store knows under this name.

    Raises:
        InvalidJob: there is no such thing.
    """
    from mlflow_project.lineage.chain import checkpoint_node
    from mlflow_project.tracking.known_stores import missing_store_cure
    from mlflow_project.tracking.store import is_missing, tracking_uri

    path = Path(subject)
    uri = tracking_uri()
    if is_missing(uri):
        if path.is_dir():
            return checkpoint_node(path, None, lambda digest: dataset)
        cause = f"{subject} is no directory, and there is no MLflow store at {uri}"
        raise InvalidJob.of("unknown-subject", cause, missing_store_cure())
    from mlflow import MlflowClient

    from mlflow_project.lineage.chain_store import Chains
    from mlflow_project.tracking.mlflow_environment import prepare_environment

    prepare_environment()
    chains = Chains(MlflowClient(uri), dataset)
    return chains.of_bundle(path) if path.is_dir() else chains.of(subject)


def _tree(node: Node, branch: Tree | None = None) -> Tree:
    """The chain as rich draws it: two lines per node, the second with place, digest and remarks."""
    details = [node.where, f"sha256 {node.digest[:16]}" if node.digest else "", *node.remarks]
    label = Text.from_markup(f"{_MARKS[node.state]} {node.kind}  ", overflow="fold")
    label.append(escaped(node.title), "bold")
    if any(details):
        label.append("\n" + "  ".join(map(escaped, filter(None, details))), "dim")
    grown = Tree(label) if branch is None else branch.add(label)
    for child in node.children:
        _tree(child, grown)
    return grown
