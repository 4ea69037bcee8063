"""Rules that no linter knows: imports, SQL and sizes in the three folders."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("runtime", "actors", "integrations")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# Tells a statement from a sentence that begins like one: an object's name must follow the keywords.
NAME = r'[\w.$"{]+'
STATEMENT = re.compile(
    rf"""\s*(?:
        select\s+(?:[\d$'"*(]|{NAME}\s*\(|{NAME}(?:\s*,|\s+from\s)|(?:distinct|exists|case|null|true|false)\b)
      | insert\s+into\s+{NAME}
      | update\s+(?:only\s+)?{NAME}\s+(?:as\s+\w+\s+)?set\s
      | delete\s+from\s+{NAME}\s*(?:$|;|where\b|using\b|as\b|returning\b)
      | with\s+(?:recursive\s+)?\w+\s*(?:\([^)]*\)\s*)?as\s+(?:not\s+)?(?:materialized\s+)?\(
      | (?:create|alter|drop)\s+(?:or\s+replace\s+|unique\s+|temp(?:orary)?\s+|unlogged\s+)*
        (?:table|index|schema|function|procedure|type|domain|view|trigger|sequence|database|extension|role)\s+{NAME}
      | truncate\s+(?:table\s+)?{NAME}\s*(?:$|;|,)
      | (?:listen|unlisten)\s+[\w."*]+\s*;?\s*$
      | notify\s+[\w."]+\s*(?:$|;|,)
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and the module of each absolute import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def loaded_by_name(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and the module of each import by a function, where the name stands in the code."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def docstrings(tree: ast.Module) -> set[int]:
    """The identities of the constants that stand alone as a statement, which docstrings do."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and the text of each string but docstrings; a value inside an f-string reads `x`."""
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            parts = (str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def place(path: Path, line: int, what: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def test_modules_of_the_three_folders_import_each_other_relatively() -> None:
    own = {"queued_tasks", *FOLDERS}
    found = [(path, line, name) for path in MODULES for line, name in imports(parse(path))]
    assert [place(*entry) for entry in found if entry[2].split(".")[0] in own] == []


def test_no_import_hides_from_the_check_of_layers_in_a_string() -> None:
    found = [(path, line, name) for path in MODULES for line, name in loaded_by_name(parse(path))]
    assert [place(*entry) for entry in found] == []


@pytest.mark.parametrize(
    "code", ["import_module('..x', __package__)", "importlib.import_module('x')", "__import__('x')"]
)
def test_a_module_that_is_loaded_by_its_name_is_found(code: str) -> None:
    assert [line for line, _ in loaded_by_name(ast.parse(code))] == [1]


def test_asyncpg_is_imported_in_the_store_alone() -> None:
    outside = [path for path in MODULES if ROOT / "runtime" / "store" not in path.parents]
    found = [(path, line, name) for path in outside for line, name in imports(parse(path))]
    assert [place(*entry) for entry in found if entry[2].split(".")[0] == "asyncpg"] == []


def test_sql_stands_in_sql_files_alone() -> None:
    found = [(path, line, text) for path in MODULES for line, text in texts(parse(path))]
    assert [place(*entry) for entry in found if STATEMENT.match(entry[2])] == []


@pytest.mark.parametrize(
    "text",
    [
        "select id from task",
        "SELECT 1",
        "\n  select now()",
        "select * from x.task where id = $1",
        "insert into x (a) values ($1)",
        "update task set state = 'done'",
        "delete from x where id = $1",
        "with due as (select 1) select 2",
        "create table if not exists x ()",
        "create unique index x on y (z)",
        "create schema x",
        "alter table x add y int",
        "drop database x",
        "listen x",
        "unlisten *",
        "notify x, 'y'",
    ],
)
def test_a_statement_is_taken_for_sql(text: str) -> None:
    assert STATEMENT.match(text)


@pytest.mark.parametrize(
    "text",
    [
        "Select the tasks to show.",
        "update",
        "Update the schema to this version.",
        "Delete enqueued and waiting tasks.",
        "delete from the list",
        "with a key set, every task is signed",
        "Create the schema, or bring it up to date.",
        "created_at",
        "Listen on this address.",
        "notify the servers",
        "notifications",
    ],
)
def test_a_sentence_is_not_taken_for_sql(text: str) -> None:
    assert not STATEMENT.match(text)


@pytest.mark.parametrize("code", ["x = 'select 1'", "x = f'select {y} from z'", "f('a', sql='select 1')"])
def test_a_string_in_code_is_looked_at(code: str) -> None:
    assert any(STATEMENT.match(text) for _, text in texts(ast.parse(code)))


def test_a_docstring_is_not_looked_at() -> None:
    assert list(texts(ast.parse('def f():\n    """select 1"""'))) == []


def test_each_module_says_its_duty() -> None:
    assert [str(path.relative_to(ROOT)) for path in MODULES if not ast.get_docstring(parse(path))] == []


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_function_is_longer_than_fifty_lines() -> None:
    functions = (
        (path, node)
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = ((path, node, (node.end_lineno or node.lineno) - node.body[0].lineno + 1) for path, node in functions)
    assert [place(path, node.lineno, node.name) for path, node, length in lengths if length > 50] == []
