"""docs/findings.md lists every code that the source can report, each once and with its level."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from rlinf_isaac.ground import errors

PROJECT = Path(__file__).parents[1]
SOURCES = [path for package in ("rlinf_isaac", "mlflow_project") for path in (PROJECT / package).rglob("*.py")]
PASS_ON = {PROJECT / "rlinf_isaac/ground/errors.py", PROJECT / "rlinf_isaac/data/lerobot/folded_findings.py"}
"""They define what reports a code, and have none of their own."""
MISMATCHES = [PROJECT / "rlinf_isaac" / "checkpoint" / f"trained_{each}.py" for each in ("with", "in")]

ERRORS = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.InvalidJob)}
KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
ROW = re.compile(r"^\| `(.+?)` \| .+ \| (.*?) ?\|$", re.MULTILINE)


def reports_a_code(call: ast.Call) -> bool:
    """Whether it is ``Problem(code, ...)``, ``DatasetError.of(code, ...)`` or ``findings.add(code, cause, cure)``."""
    match call.func:
        case ast.Name(id="Problem"):
            return True
        case ast.Attribute(value=ast.Name(id=name), attr="of"):
            return name in ERRORS
        case ast.Attribute(attr="add"):
            return len(call.args) >= 3
    return False


def level_in(expressions: list[ast.expr]) -> str:
    is_warning = any(isinstance(each, ast.Constant) and each.value == "warning" for each in expressions)
    return "warning" if is_warning else "error"


def tuples_with_a_code(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Code and level of every ``("code", cause, ...)`` in the functions of a module."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for node in (node for statement in function.body for node in ast.walk(statement)):
            match node:
                case ast.Tuple(elts=[ast.Constant(value=str(code)), _, *_]) if KEBAB_CASE.fullmatch(code):
                    yield code, level_in(node.elts)


def codes_in(path: Path) -> Iterator[tuple[str, str]]:
    """Code and level of everything that a module reports; fails where it cannot be told."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and reports_a_code(node)):
        level = level_in([*call.args, *(keyword.value for keyword in call.keywords)])
        match call.args:
            case [ast.Constant(value=str(code)), *_]:
                yield code, level
            case [ast.IfExp(body=ast.Constant(value=str(code)), orelse=ast.Constant(value=str(other))), *_]:
                yield from ((code, level), (other, level))
            case [ast.Attribute(attr="code"), *_]:  # of a problem that was reported elsewhere
                pass
            case [ast.Name() | ast.Starred(), *_] if codes := list(tuples_with_a_code(tree)):
                yield from codes
            case _:
                raise AssertionError(f"{path}, line {call.lineno}: write the code where it is reported, or in a tuple")


def reported() -> dict[str, set[str]]:
    """Code -> its levels."""
    levels: dict[str, set[str]] = defaultdict(set)
    for path in set(SOURCES) - PASS_ON:
        for code, level in codes_in(path):
            levels[code].add(level)
    return levels


def listed() -> list[tuple[str, str]]:
    """Code and level of every row of the document."""
    return ROW.findall((PROJECT / "docs" / "findings.md").read_text(encoding="utf-8"))


def test_the_codes_are_those_of_the_source():
    assert {code for code, _ in listed()} == set(reported())


def test_every_code_is_listed_once_and_in_kebab_case():
    codes = [code for code, _ in listed()]
    assert [code for code in codes if codes.count(code) > 1] == []
    assert [code for code in codes if not KEBAB_CASE.fullmatch(code)] == []


def test_the_levels_are_those_of_the_source():
    allowed = {code for path in MISMATCHES for code, _ in codes_in(path)}
    spelling = {("error",): "", ("warning",): "warning", ("error", "warning"): "error or warning"}
    expected = {
        code: "error; warning with `--allow-mismatch`" if code in allowed else spelling[tuple(sorted(levels))]
        for code, levels in reported().items()
    }
    assert dict(listed()) == expected
