"""What a reading command works with: the settings, and one connection to a database that has the schema."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ...runtime.database import prepare
from ...runtime.settings import Settings
from ...runtime.store.link import Link
from ...runtime.store.reads import Reads


@dataclass(frozen=True, slots=True)
class Desk:
    """One command's access to the queue."""

    settings: Settings
    dsn: str
    link: Link
    reads: Reads


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    """Open the database that the environment names.

    Raises:
        ConfigurationError, SchemaOutdated, DatabaseUnavailable: see `prepare`.
    """
    settings = Settings()
    dsn = await prepare(settings)
    link = Link(dsn, settings.schema, name="cli", statement_cache=settings.statement_cache)
    try:
        yield Desk(settings, dsn, link, Reads(link))
    finally:
        await link.close()
