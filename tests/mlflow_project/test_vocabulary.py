from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import mlflow_project
from mlflow_project import vocabulary
from mlflow_project.vocabulary import (
    EXPERIMENT_PLACEHOLDER,
    fill_in,
    for_people_first,
    lineage_tag,
    local_run,
    run_placeholder,
)

RUN, OTHER = "0123456789abcdef" * 2, "f" * 32
WORDS = {value: name for name, value in vars(vocabulary).items() if name.isupper() and isinstance(value, str)}


def test_ids_are_filled_in():
    text = f"#/experiments/{EXPERIMENT_PLACEHOLDER}/runs/{run_placeholder(RUN)} and {run_placeholder(OTHER)}"
    assert fill_in(text, "7", {RUN: "a", OTHER: "b"}.__getitem__) == "#/experiments/7/runs/a and b"


def test_the_run_that_a_placeholder_stands_for():
    assert local_run(run_placeholder(RUN)) == RUN
    assert local_run(RUN) is None, "an id of MLflow's"


def test_the_tag_of_a_link():
    assert lineage_tag("norm_stats") == "lineage.norm_stats.sha256"


def test_no_other_module_spells_a_name_by_itself():
    """Of a name that is a plain word (`rollout`), the letters may mean something else elsewhere."""
    spelled = defaultdict(set)
    for path in Path(mlflow_project.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in WORDS and not node.value.isalpha():
                spelled[node.value].add(path.name)
    assert {word: names for word, names in spelled.items() if names != {"vocabulary.py"}} == {}


def test_what_a_person_wants_to_know_comes_before_digests():
    tags = {"lineage.env.sha256": "a", "version.torch": "2", "command": "x", "gpu": "H200", "about.host": "here"}
    tags |= {"task": "stack2", "about.success": "not yet"}
    ordered = ["about.success", "about.host", "task", "gpu", "lineage.env.sha256", "version.torch", "command"]
    assert list(for_people_first(tags).items()) == [(key, tags[key]) for key in ordered]
