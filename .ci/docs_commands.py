"""The commands in README and docs/, and what is wrong with those that this project does not understand.

    python .ci/docs_commands.py          lists every command; exit status 1 when one is wrong

A command of ``rlinf-isaac`` is right if its verb and options exist and its values have the right type; one of
``mlflow run .`` if the entry point has these parameters and the verb that it calls is right. Words in capitals
(RUN_ID, CHECKPOINTS) stand for values of the reader's. Nothing is run.

A comment before a block says what it takes: ``<!-- needs: a GPU -->``. A block that names a CUDA device, several
processes, torchrun or Slurm must have one. ``<!-- test: --steps 4 -->`` has options that a test adds when it runs it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import yaml
from readme_lines import ROOT, indented, pages

from mlflow_project.cli import VERBS, cli
from rlinf_isaac.config import keys_of, known_keys, split_overrides
from rlinf_isaac.config.reads import FORMS, check_overrides

COMMENT = re.compile(r"<!-- (needs|test): (.*?) -->")
ELSEWHERE = re.compile(r"cuda\b|num_processes=|\btorchrun\b|\bsbatch\b|\bsrun\b|\bssh\b")
"""What needs a GPU, several of them, or another machine."""
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]+(/[A-Z0-9]+)*|\.\.\.")
RUN_OPTIONS = {"-e", "-P", "-b", "--backend-config", "--env-manager", "--experiment-name", "--run-name"}


@dataclass(frozen=True)
class Block:
    """A block of commands.

    Attributes:
        page: the path of its page from the root of the project.
        line: the number of its first line there.
        commands: its commands with their words; variables that are set before a command are left out.
        needs: what the comment before it says that it takes.
        test: options that a test adds to its last command.
    """

    page: str
    line: int
    commands: tuple[tuple[str, ...], ...]
    needs: str | None
    test: str | None

    @property
    def place(self) -> str:
        """Where it is, as a finding names it."""
        return f"{self.page}:{self.line}"


def blocks(text: str, page: str = "") -> Iterator[Block]:
    """The blocks of shell of a page, fenced or indented."""
    comment: dict[str, str] = {}
    lines, first = [], 0
    for number, line in enumerate([*indented(text).splitlines(), "end"], 1):
        if line.startswith("    ") or (lines and not line.strip()):
            first = first or number
            lines.append(line[4:])
            continue
        if lines:
            commands = tuple(_commands("\n".join(lines)))
            yield Block(page, first, commands, comment.get("needs"), comment.get("test"))
            lines, first, comment = [], 0, {}
        if found := COMMENT.fullmatch(line.strip()):
            comment[found[1]] = found[2]
        elif line.strip():
            comment = {}


def all_blocks() -> list[Block]:
    """Those of README and of every page of docs/."""
    return [each for page in pages() for each in blocks(page.read_text(), str(page.relative_to(ROOT)))]


def problems(block: Block) -> Iterator[str]:
    """What is wrong with a block, each with its place."""
    for words in block.commands:
        said = shlex.join(words)
        for problem in wrong(words):
            yield f"{block.place}: {said}: {problem}"
    elsewhere = any(ELSEWHERE.search(shlex.join(words)) for words in block.commands)
    if elsewhere and not block.needs and not block.page.startswith("README"):
        yield f"{block.place}: needs a GPU or another machine; put <!-- needs: a GPU --> on a line before it"


def wrong(words: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with one command; nothing with those of other programs."""
    if words[0].rpartition("/")[2] == "rlinf-isaac":
        yield from wrong_verb(words[1:])
    elif "mlflow_project.cli" in words:
        yield from wrong_verb(words[words.index("mlflow_project.cli") + 1 :])
    elif words[0] == "srun":
        yield from wrong(words[1:])
    elif words[:3] == ("mlflow", "run", "."):
        yield from wrong_entry_point(words[3:])


def wrong_verb(words: tuple[str, ...]) -> Iterator[str]:
    """What click would say of ``rlinf-isaac WORDS``."""
    if not words or words[0].startswith("-") or PLACEHOLDER.fullmatch(words[0]):
        return
    name, *rest = words
    if name.replace("-", "_") not in VERBS:
        yield f"there is no verb {name}"
        return
    if name == "doctor" and rest and rest[0] in VERBS:
        yield from wrong_verb(tuple(rest))
        return
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    if name == "doctor" and rest[:1] == ["env"]:
        from mlflow_project.cli._doctor_env import command

        rest = rest[1:]
    yield from _wrong_words(command, rest)
    if "--overrides" in rest[:-1]:
        yield from wrong_overrides(name, rest[rest.index("--overrides") + 1])


def wrong_overrides(verb: str, text: str) -> Iterator[str]:
    """Overrides of keys that do not exist, or that the verb does not read."""
    if PLACEHOLDER.fullmatch(text):
        return
    items = split_overrides(text)
    yield from (f"there is no key {key}" for item in items for key in keys_of(item) if key not in known_keys())
    if verb in FORMS:
        yield from (problem.cause for problem in check_overrides(verb, items))


def wrong_keys(text: str) -> Iterator[str]:
    """Config keys in backticks that do not exist. (Words like `env.kind` and `rl.ended` may be something else.)"""
    for key in re.findall(r"`((?:model|policy|demos|sft|compute)\.\w[\w.]*)(?:=[^`]*)?`", text):
        if key not in known_keys() and not any(known.startswith(f"{key}.") for known in known_keys()):
            yield key


def wrong_entry_point(words: tuple[str, ...]) -> Iterator[str]:
    """What MLflow and then click would say of ``mlflow run . WORDS``."""
    given: dict[str, str] = {}
    name, remaining = "main", list(words)
    while remaining:
        option = remaining.pop(0)
        if option not in RUN_OPTIONS or not remaining:
            yield f"mlflow run has no {option} here"
            return
        value = remaining.pop(0)
        if option == "-e":
            name = value
        elif option == "-P":
            key, _, given_value = value.partition("=")
            given[key] = given_value
    points: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    if name not in points:
        if not PLACEHOLDER.fullmatch(name):
            yield f"MLproject has no entry point {name}"
        return
    parameters = points[name]["parameters"]
    if "option" in given:  # `-e VERB -P option=value`, which explains the form
        return
    yield from (f"{name} has no parameter {key}" for key in given if key not in parameters)
    if "overrides" in given:
        yield from wrong_overrides(name, given["overrides"])
    yield from (f"{name} needs {key}" for key, each in parameters.items() if "default" not in each and key not in given)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for each in command.params:
        if each.name in given:
            yield from _wrong_value(each, given[each.name])


def _wrong_words(command: click.Command, words: list[str]) -> Iterator[str]:
    context = click.Context(command)
    try:
        values, left, _ = command.make_parser(context).parse_args(list(words))
    except click.UsageError as error:
        yield error.format_message()
        return
    if left and not context.allow_extra_args:
        yield f"unexpected {' '.join(left)}"
    for each in command.get_params(context):
        value = values.get(each.name or "")
        if not isinstance(value, (str, tuple)) or value == ():
            if each.required:
                yield f"{each.opts[0]} is missing"
        else:
            for one in (value,) if isinstance(value, str) else value:
                yield from _wrong_value(each, one, context)


def _wrong_value(parameter: click.Parameter, value: Any, context: click.Context | None = None) -> Iterator[str]:
    if not isinstance(value, str) or PLACEHOLDER.fullmatch(value) or isinstance(parameter.type, click.Path):
        return
    try:
        parameter.type.convert(value, parameter, context)
    except click.UsageError as error:
        yield error.format_message()


def _commands(text: str) -> Iterator[tuple[str, ...]]:
    """The commands of a block: lines with a prompt where it has prompts, else all lines that are shell."""
    text = re.sub(r"\\\n\s*", " ", text)
    lines = text.splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        words: list[str] = []
        try:
            for word in [*lexer, ";"]:
                if set(word) <= set("&;|"):
                    while words and re.fullmatch(r"\w+=.*", words[0]):
                        words.pop(0)
                    if words:
                        yield tuple(words)
                    words = []
                else:
                    words.append(word)
        except ValueError:  # a figure or a listing
            continue


def main() -> None:
    """List the commands of this project, then what is wrong."""
    found = all_blocks()
    for block in found:
        for words in block.commands:
            if words[0] in ("rlinf-isaac", "mlflow"):
                print(f"{block.place:38} {shlex.join(words)}")
    wrongs = [problem for block in found for problem in problems(block)]
    print(*wrongs, sep="\n")
    raise SystemExit(bool(wrongs))


if __name__ == "__main__":
    main()
