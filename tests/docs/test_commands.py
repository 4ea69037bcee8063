"""What the pages say about the command line is what it takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import typer.main

from queued_tasks.integrations.cli.main import app
from tests.docs.blocks import blocks_of
from tests.docs.tables import DOCS, ROOT, code, table

Command = Any  # typer brings a click of its own


def commands(group: Command, name: str = "queued-tasks") -> Iterator[tuple[str, Command]]:
    """All commands by what one types."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{name} {word}", command
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def options_of(command: Command) -> set[str]:
    """The long options of a command, but for --help and hidden ones."""
    params = (param for param in command.params if param.param_type_name == "option" and not param.hidden)
    return {max(param.opts, key=len) for param in params}


def typed() -> list[str]:
    """Every command line in the blocks of all pages, a placeholder `ID` or `<id>` filled."""
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    shown = (block for page in pages for block in blocks_of(page) if block.language != "python")
    lines = [line for block in shown for line in block.code.splitlines()]
    return [
        re.sub(r"<id>|\bID\b", str(UUID(int=7)), line).partition("  #")[0].strip()
        for line in lines
        if line.startswith("queued-tasks ")
    ]


def test_the_reference_names_every_command_with_its_options() -> None:
    written = {code(row[0]): set(re.findall(r"`(--[\w-]+)`", row[1])) for row in table("operate.md", "command")}
    assert written == {name: options_of(command) for name, command in commands(typer.main.get_command(app))}


@pytest.mark.parametrize("line", typed())
def test_a_command_line_that_a_page_shows_is_understood(line: str) -> None:
    group: Command = typer.main.get_command(app)
    context = group.make_context("queued-tasks", shlex.split(line)[1:], resilient_parsing=False)
    arguments = [*context._protected_args, *context.args]
    while hasattr(group, "commands") and arguments:
        name, group, arguments = group.resolve_command(context, arguments)
        context = group.make_context(name, arguments, parent=context)
        arguments = [*context._protected_args, *context.args]
    assert context.command.callback is not None
