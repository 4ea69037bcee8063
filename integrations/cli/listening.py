"""Whether notifications arrive, and whether a pooler stands before PostgreSQL: a part of `doctor`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

from ...runtime.errors import DatabaseUnavailable
from ...runtime.settings import Settings
from ...runtime.store.link import Link
from ...runtime.store.topics import Topics
from .findings import Finding, Level

_ROUND_TRIP = 5.0  # seconds that a notification may take


async def of_listening(settings: Settings, dsn: str, link: Link) -> AsyncIterator[Finding]:
    """What is wrong between this host and PostgreSQL."""
    direct = settings.listen_database_url
    if settings.statement_cache and not await _is_direct(settings, dsn):
        yield _cache()
    heard = asyncio.Event()
    listen_dsn = dsn if direct is None else direct.get_secret_value()
    topics = Topics(
        listen_dsn, settings.schema, name="doctor", on_notified=lambda *_: heard.set(), on_lost=lambda: None
    )
    topic = f"queued_tasks_doctor_{secrets.token_hex(8)}"
    try:
        if not await topics.open([topic], lock_key=secrets.randbits(62)):
            yield _pooler(settings)
        elif settings.use_postgresql_notify and not await _arrives(link, topic, heard):
            yield _unheard(direct is not None)
    except DatabaseUnavailable as error:
        variable = "QUEUE_LISTEN_DATABASE_URL" if direct is not None else "QUEUE_DATABASE_URL"
        finding = f"Nothing can listen for notifications: {error}"
        yield Finding("notifications", Level.ERROR, finding, f"Correct {variable}.")
    finally:
        topics.close()


async def _is_direct(settings: Settings, dsn: str) -> bool:
    topics = Topics(dsn, settings.schema, name="doctor", on_notified=lambda *_: None, on_lost=lambda: None)
    try:
        return await topics.open([], lock_key=secrets.randbits(62))
    finally:
        topics.close()


async def _arrives(link: Link, topic: str, heard: asyncio.Event) -> bool:
    await link.fetch("notify", [topic], [""])
    try:
        async with asyncio.timeout(_ROUND_TRIP):
            await heard.wait()
    except TimeoutError:
        return False
    return True


def _cache() -> Finding:
    return Finding(
        "pooler",
        Level.ERROR,
        "A pooler stands before PostgreSQL, and prepared statements are on: they fail when it changes the session.",
        "Set QUEUE_STATEMENT_CACHE=0 wherever QUEUE_DATABASE_URL leads through the pooler.",
    )


def _pooler(settings: Settings) -> Finding:
    silent = ", and notifications may not come" if settings.use_postgresql_notify else ""
    polling = ", or QUEUE_USE_POSTGRESQL_NOTIFY=false" if settings.use_postgresql_notify else "; or live with it"
    return Finding(
        "pooler",
        Level.WARNING,
        "There is no way past a pooler to PostgreSQL: that a server died is noticed only when its lease has run out"
        f"{silent}.",
        f"Set QUEUE_LISTEN_DATABASE_URL to PostgreSQL itself{polling}.",
    )


def _unheard(direct: bool) -> Finding:
    same = "Let QUEUE_LISTEN_DATABASE_URL name the same database as QUEUE_DATABASE_URL."
    return Finding(
        "notifications",
        Level.ERROR,
        f"A notification did not arrive within {_ROUND_TRIP:g} s: tasks start only when servers poll.",
        same if direct else "Set QUEUE_LISTEN_DATABASE_URL to PostgreSQL itself.",
    )
