"""Load the SQL files, with the schema's name put in."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_SCHEMA = re.compile(r"\bqueued_tasks\b")


def in_schema(sql: str, schema: str) -> str:
    """Let `sql`, in which the schema is called queued_tasks, speak of `schema` (a checked identifier)."""
    return sql if schema == "queued_tasks" else _SCHEMA.sub(f'"{schema}"', sql)


@cache
def load(schema: str) -> dict[str, str]:
    """Every statement of sql/ by the name of its file."""
    folder = files(__package__) / "sql"
    return {
        entry.name.removesuffix(".sql"): in_schema(entry.read_text(encoding="utf-8"), schema)
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }


@cache
def migrations(schema: str) -> dict[int, tuple[str, str]]:
    """Every migration by its number: its name and its SQL, in order."""
    folder = files(__package__) / "migrations"
    named = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return {
        int(name[:4]): (name[5:].removesuffix(".sql"), in_schema((folder / name).read_text(encoding="utf-8"), schema))
        for name in named
    }
