"""Several tasks that one policy learns: a suite. A person names its tasks with commas, or writes a YAML file.

    name: table
    tasks: [metaworld/reach-v3, mine.yaml]
    statistics: shared

This module needs the standard library alone, as `task` does, until a suite is looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.registry import SUITES, find_task, offered
from rlinf_isaac.tasks.task import NAME, Task

Statistics = Literal["shared", "per-task"]
STATISTICS: tuple[Statistics, ...] = ("shared", "per-task")
"""Whether the norm stats are those of all tasks together, or each task has its own."""
Find = Callable[[str], Task]
KEYS = ("name", "tasks", "statistics")
_CURE = "write name, tasks (a list of names or files) and statistics (shared or per-task); docs/tasks.md says how"


@dataclass(frozen=True)
class Suite:
    """Several tasks of one policy.

    Attributes:
        name: for people, and the key ``env.task``.
        tasks: at least two, with different names.
        statistics: one of `STATISTICS`.
    """

    name: str
    tasks: tuple[Task, ...]
    statistics: Statistics

    @property
    def asset_ids(self) -> dict[str, str]:
        """Task -> the name under which its norm stats lie in a checkpoint. Tasks of one robot that have statistics of
        their own are told apart by their names."""
        if self.statistics == "shared":
            return dict.fromkeys((task.name for task in self.tasks), self.tasks[0].asset_id)
        robots = Counter(task.asset_id for task in self.tasks)
        return {
            task.name: task.asset_id if robots[task.asset_id] == 1 else task.name.replace("/", "_")
            for task in self.tasks
        }

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict, for `JobConfig.suite`; `suite_from` is its inverse. The order of the tasks has an entry of
        its own, because JSON with sorted keys does not keep that of a dict."""
        return {
            "name": self.name,
            "statistics": self.statistics,
            "order": [task.name for task in self.tasks],
            "assets": self.asset_ids,
            "tasks": {task.name: task.as_dict() for task in self.tasks},
        }


def suite_from(values: Any, origin: str) -> Suite:
    """The suite that `Suite.as_dict` made this of.

    Raises:
        InvalidJob: it is no such dict; the message names `origin`.
    """
    try:
        described = {str(name): values["tasks"][name] for name in values["order"]}
        name, statistics = str(values["name"]), values["statistics"]
    except (KeyError, TypeError) as error:
        raise InvalidJob.of("bad-suite", f"{origin}: the suite is damaged ({error!r})", _CURE) from error
    return _checked(name, [from_dict(each, origin) for each in described.values()], statistics, origin)


def find_suite(text: str, find: Find = find_task) -> Suite | None:
    """The suite that a person means: several names or files with commas, a YAML file of a suite, or the name of one of
    this project's. None where `text` is a single task. `find` looks up each task.

    Raises:
        InvalidJob: there is no such task, or the suite's description is wrong.
    """
    if "," in text:
        names = [part.strip() for part in text.split(",") if part.strip()]
        return _named(None, names, None, f"--task {text}", find)
    if text.endswith((".yaml", ".yml")):
        values = _suite_of_file(Path(text))
        return None if values is None else _of_values(values, Path(text), find)
    made = offered(SUITES).get(text)
    return None if made is None else _named(text, list(made()), None, f"the suite {text}", find)


def suite_names() -> list[str]:
    """The names of all suites that ship with the project."""
    return sorted(offered(SUITES))


def alike(tasks: Sequence[Task]) -> list[str]:
    """In which respects the tasks differ that must be equal for their norm stats to be shared; empty if in none."""
    first, found = tasks[0], []
    for what, of in (
        ("state", lambda task: (task.state.dims, task.state.dataset)),
        ("action", lambda task: (task.action.dims, task.action.dataset)),
        ("delta", lambda task: task.action.delta),
        ("adapt", lambda task: task.adapt),
    ):
        different = next((task for task in tasks if of(task) != of(first)), None)
        if different is not None:
            found.append(f"{what} is {of(first)} in {first.name} and {of(different)} in {different.name}")
    for what, names in (("state", lambda task: task.state.names), ("action", lambda task: task.action.names)):
        given = {names(task) for task in tasks} - {None}
        if len(given) > 1:
            found.append(f"the names of the {what} differ")
    return found


def _suite_of_file(path: Path) -> Mapping[str, Any] | None:
    """The content of a YAML file, if it is a suite's: it has the key ``tasks``."""
    import yaml

    from rlinf_isaac.ground.yaml_text import read_yaml_text

    try:
        values = yaml.safe_load(read_yaml_text(path))
    except (OSError, ValueError, yaml.YAMLError):
        return None  # `read_task` says what is wrong with it
    return values if isinstance(values, Mapping) and "tasks" in values else None


def _of_values(values: Mapping[str, Any], path: Path, find: Find) -> Suite:
    problems = [
        Problem("bad-suite", f"{path} has the key {key!r}; a suite has {', '.join(KEYS)}", _CURE)
        for key in values
        if key not in KEYS
    ]
    name, tasks = values.get("name"), values.get("tasks")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        problems.append(Problem("bad-suite", f"{path}: name is {name!r}", _CURE))
    if not isinstance(tasks, list) or not all(isinstance(each, str) for each in tasks):
        problems.append(Problem("bad-suite", f"{path}: tasks is {tasks!r}, not a list of names or files", _CURE))
    if problems:
        raise InvalidJob(problems)
    # A file that is named there lies beside the suite's file, unless its path is absolute.
    names = [str(path.parent / each) if each.endswith((".yaml", ".yml")) else each for each in cast(list[str], tasks)]
    return _named(str(name), names, values.get("statistics"), str(path), find)


def _named(name: str | None, names: Sequence[str], statistics: Any, origin: str, find: Find) -> Suite:
    problems: list[Problem] = []
    tasks = []
    for each in names:
        try:
            tasks.append(find(each))
        except InvalidJob as error:
            problems += error.problems
    if problems:
        raise InvalidJob(problems)
    return _checked(name or ",".join(task.name for task in tasks), tasks, statistics, origin)


def _checked(name: str, tasks: Sequence[Task], statistics: Any, origin: str) -> Suite:
    """The suite, once it is known to be one. Statistics that nobody chose are shared where they can be."""
    counts = Counter(task.name for task in tasks)
    problems = [
        Problem("suite-twice", f"{origin} has the task {each} {count} times", "name each task once")
        for each, count in counts.items()
        if count > 1
    ]
    if len(tasks) < 2:
        problems.append(Problem("bad-suite", f"{origin} has {len(tasks)} tasks; a suite has two or more", _CURE))
    if statistics not in (*STATISTICS, None):
        cause = f"{origin}: statistics is {statistics!r}, neither {' nor '.join(STATISTICS)}"
        problems.append(Problem("bad-suite", cause, _CURE))
    different = alike(tasks) if tasks and statistics != "per-task" else []
    if statistics == "shared" and different:
        cause = f"{origin} shares norm stats, but {'; '.join(different)}"
        problems.append(Problem("suite-dims", cause, "write statistics: per-task"))
    if problems:
        raise InvalidJob(problems)
    chosen = statistics or ("per-task" if different else "shared")
    return Suite(name, tuple(tasks), cast(Statistics, chosen))
