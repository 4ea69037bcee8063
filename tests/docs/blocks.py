"""The code of a page: the files that it shows are written, the rest is run in their order, in one process.

Python blocks whose first line is a file name in a comment (`# main.py`) are files; further ones of that name continue
the file. All other Python and SQL blocks are run one after the other, Python as in `python -m asyncio`, with `tasks`, a
handle. What a line promises is checked: `expression  # → repr`, `statement  # raises Name: beginning of its text`.

Run as a program, this runs the blocks of a page in the current folder.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import asyncpg

from queued_tasks import QueuedTasks

SERVER = "<!-- needs a server -->"
LANGUAGES = {"python", "sql", "bash", "text", "ini", "json"}

_FENCE = re.compile(
    r"^(?:<!-- fragment: (?P<reason>.+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
_FILE = re.compile(r"# ([\w/]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block; `reason` says why a fragment can't be run, `line` is where its code begins."""

    page: Path
    line: int
    language: str
    code: str
    reason: str | None

    @property
    def file(self) -> str | None:
        """The file that it shows."""
        found = _FILE.match(self.code) if self.language == "python" else None
        return found[1] if found else None


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in their order."""
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, found.start("code")) + 1, found["language"], found["code"], found["reason"])
        for found in _FENCE.finditer(text)
    ]


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows."""
    for block in blocks_of(page):
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(block.code)


async def run_page(page: Path) -> None:
    """Run what of a page is neither a file nor a fragment; raises what goes wrong, with the line of the page."""
    async with QueuedTasks.connect() as tasks:
        names: dict[str, Any] = {"__name__": "__main__", "tasks": tasks}
        for block in blocks_of(page):
            if block.reason is None and block.file is None and block.language == "python":
                for statement, promise in _statements(block):
                    await _run(block, statement, promise, names)
            elif block.reason is None and block.language == "sql":
                await _run_sql(block)


def _statements(block: Block) -> Iterator[tuple[ast.stmt, str]]:
    """The statements of a block, each with what the comment at its end promises."""
    lines = block.code.splitlines()
    tree = ast.parse(block.code)
    for statement in tree.body:
        last = lines[(statement.end_lineno or 1) - 1]
        _, _, promise = last.partition("  # ")
        yield ast.increment_lineno(statement, block.line - 1), promise


async def _run(block: Block, statement: ast.stmt, promise: str, names: dict[str, Any]) -> None:
    promised = promise.removeprefix("raises ") if promise.startswith("raises ") else None
    place = f"{block.page.name}:{statement.lineno}"
    try:
        value = await _evaluate(statement, str(block.page), names)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if promised is None or not said.startswith(promised):
            raise AssertionError(f"{place} raised {said}") from error
        return
    assert promised is None, f"{place} raised nothing, but promises {promised}"
    if promise.startswith("→ "):
        assert repr(value) == promise.removeprefix("→ "), f"{place} gives {value!r}, but promises {promise}"


async def _evaluate(statement: ast.stmt, file: str, names: dict[str, Any]) -> object:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType
    if isinstance(statement, ast.Expr):
        code = compile(ast.Expression(statement.value), file, "eval", flags)
    else:
        code = compile(ast.Module([statement], []), file, "exec", flags)
    value = eval(code, names)
    return await value if code.co_flags & inspect.CO_COROUTINE else value


async def _run_sql(block: Block) -> None:
    connection = await asyncpg.connect(os.environ["QUEUE_DATABASE_URL"])
    try:
        await connection.execute(block.code)
    except asyncpg.PostgresError as error:
        raise AssertionError(f"{block.page.name}:{block.line}: {error}") from error
    finally:
        await connection.close()


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    asyncio.run(run_page(Path(sys.argv[1])))
