"""What a transaction has left behind."""

from __future__ import annotations

import asyncpg


async def left(rows: asyncpg.Connection) -> tuple[int, int]:
    """How many orders and tasks are there for others to see."""
    row = await rows.fetchrow(
        "select (select count(*) from orders), (select count(*) from queued_tasks.inbox i"
        " join queued_tasks.task t on t.id = i.id)"
    )
    return row[0], row[1]
