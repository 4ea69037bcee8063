"""The page about SQL names what the database has."""

from __future__ import annotations

import re

import pytest

from tests.databases import connected
from tests.docs.tables import code, table


def names(rows: list[list[str]], column: int = 0) -> set[str]:
    """All that stands in backquotes in a column."""
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row[column])}


async def columns(database: str, relation: str) -> set[str]:
    async with connected(database) as connection:
        found = await connection.fetch(
            "select attname from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped",
            f"queued_tasks.{relation}",
        )
    return {row["attname"] for row in found}


async def test_the_columns_of_task_view_are_all_there(database: str) -> None:
    assert names(table("sql.md", "column")) == await columns(database, "task_view")


RELATIONS = [
    (code(row[0]), row[2])
    for head in ("table", "table about servers")
    for row in table("sql.md", head)
    if code(row[0]) != "task"
]


@pytest.mark.parametrize(("relation", "cell"), RELATIONS)
async def test_the_columns_of_the_table_are_all_there(database: str, relation: str, cell: str) -> None:
    plain = re.sub(r"\([^)]*\)", "", cell).replace("`exception_…`", "")
    exceptions = {"exception_name", "exception_message", "exception_traceback"} if "exception_…" in cell else set()
    assert {*re.findall(r"`([^`]+)`", plain), *exceptions} == await columns(database, relation)


async def test_the_arguments_of_enqueue_are_all_there_with_their_defaults(database: str) -> None:
    async with connected(database) as connection:
        found = await connection.fetchval(
            "select pg_get_function_arguments(oid) from pg_proc "
            "where proname = 'enqueue' and pronamespace = 'queued_tasks'::regnamespace"
        )
    parts = [part.strip().partition(" DEFAULT ") for part in found.split(",")]
    expected = {
        head.split()[0]: re.sub(r"::.*", "", default).strip("'").lower() or "required" for head, _, default in parts
    }
    rows = table("sql.md", "argument of `enqueue`")
    assert {code(row[0]): row[2].strip("`") for row in rows} == expected
