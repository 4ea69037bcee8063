"""How much was enqueued."""

from __future__ import annotations

import asyncpg


async def count(rows: asyncpg.Connection) -> int:
    return int(await rows.fetchval("select count(*) from queued_tasks.task"))
