"""Which PostgreSQL to use: the configured one, else the embedded one; and whether its schema is fit for use."""

from __future__ import annotations

import asyncio
import re

from pydantic import SecretStr

from .errors import ConfigurationError
from .settings import Settings
from .store.migrate import check, migrate

_URL = re.compile(r"postgres(?:ql)?(?:\+\w+)?://(?P<rest>.*)", re.DOTALL)
_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::\d*)?")


def is_embedded(settings: Settings) -> bool:
    """Whether these settings name no database, so that the embedded one is used."""
    return settings.database_url is None


async def resolve(settings: Settings) -> str:
    """Return the DSN of the configured database, else start or join the embedded one. Connects to nothing.

    SQLAlchemy's way of writing it (`postgresql+asyncpg://`) is understood.

    Raises:
        ConfigurationError: the URL is malformed; or there is none and the embedded PostgreSQL is not installed.
    """
    if settings.database_url is not None:
        return _checked(settings.database_url.get_secret_value())
    from .embedded import start  # only now: it hooks into every fork of the process

    return await asyncio.to_thread(start, settings.data_dir)


def with_key(settings: Settings) -> Settings:
    """These settings; for the embedded database, where none is configured, with the key that lies beside its data.

    Raises:
        ConfigurationError: that key is not private. To be called once `resolve` has made the folder.
    """
    if not is_embedded(settings) or settings.secret_key is not None:
        return settings
    from .embedded_home import data_home
    from .own_key import own_key

    return settings.model_copy(update={"secret_key": SecretStr(own_key(data_home(settings.data_dir)))})


async def prepare(settings: Settings) -> str:
    """Return the DSN of a database that has the schema: the embedded one is migrated, any other is only looked at.

    Raises:
        ConfigurationError: see `resolve`.
        SchemaOutdated: the configured database needs `queued-tasks migrate`.
        DatabaseUnavailable: it can't be reached.
    """
    dsn = await resolve(settings)
    if is_embedded(settings):
        await migrate(dsn, schema=settings.schema)
    else:
        await check(dsn, schema=settings.schema)
    return dsn


def _checked(url: str) -> str:
    match = _URL.fullmatch(url.strip())
    if not match:
        # The text must not show the URL: it may hold a password.
        raise ConfigurationError(
            "The database's URL (QUEUE_DATABASE_URL or DATABASE_URL) is not one of PostgreSQL: "
            "write it as postgresql://user:password@host:5432/name."
        )
    hosts = re.split(r"[/?#]", match["rest"], maxsplit=1)[0].rpartition("@")[2]
    if not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        raise ConfigurationError(
            "The database's URL (QUEUE_DATABASE_URL or DATABASE_URL) is malformed after the @: write host:port, with a "
            "number for the port, and %-escapes for special characters in the password."
        )
    return f"postgresql://{match['rest']}"
