"""A server from its start to its exit code: signals, one incarnation after another, probes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress

from loguru import logger

from ..runtime.actor import ActorKeptFailing
from ..runtime.errors import DatabaseUnavailable
from ..runtime.intake import ALL, Intake
from ..runtime.settings import Settings
from ..runtime.store import migrate
from ..runtime.store.link import LeaseLost
from ..runtime.task import ServerId
from .console import configure
from .identity import Identity, version_of
from .probes import probes
from .tree import Application, Incarnation, Links, run_incarnation
from .vitals import Vitals

LONGEST_PAUSE = 5.0  # seconds between two tries to reach PostgreSQL


async def run(
    settings: Settings,
    *,
    dsn: str,
    app: str | None,
    app_dir: str | None,
    name: str | None,
    lifespan: bool,
    scheduler: bool = True,
    intake: Intake = ALL,
) -> int:
    """Run this host's server until SIGTERM or SIGINT; return its exit code.

    0: everything that ran has ended or was handed back. 1: an actor kept failing. A second signal ends the process at
    once, with exit code 1; peers then take back what it held.

    Raises:
        SchemaOutdated: the database needs `queued-tasks migrate`.
        ConfigurationError: the probes' port can't be used.
    """
    configure(settings.log_format)
    server = _Server(
        settings, dsn, Application(app, app_dir, lifespan, scheduler, intake), name or socket.gethostname()
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.signalled)
    return await server.run()


class _Server:
    def __init__(self, settings: Settings, dsn: str, application: Application, name: str) -> None:
        self._settings = settings
        self._dsn = dsn
        self._application = application
        self._name = name
        self._draining = asyncio.Event()
        self._signalled = False
        self._vitals = Vitals()

    def signalled(self) -> None:
        if self._signalled:
            logger.error("second signal: leaving at once, peers take back what runs")
            sys.stderr.flush()
            os._exit(1)
        self._signalled = True
        self._draining.set()

    async def run(self) -> int:
        async with AsyncExitStack() as stack:
            if self._settings.health_port is not None:
                await stack.enter_async_context(
                    probes(self._settings.health_host, self._settings.health_port, ready=self._is_ready)
                )
            try:
                return await self._incarnations()
            finally:
                if self._settings.health_file is not None:
                    self._settings.health_file.unlink(missing_ok=True)

    def _is_ready(self) -> bool:
        return self._vitals.claiming(self._settings.lease_ttl.total_seconds())

    async def _incarnations(self) -> int:
        pause = 0.5
        previous: ServerId | None = None
        while not self._draining.is_set():
            self._vitals = Vitals()
            identity = Identity(self._name, version=version_of(self._settings.app_version))
            try:
                await migrate.check(self._dsn, schema=self._settings.schema)
                links = Links.of(self._dsn, self._settings, self._name)
                our = Incarnation(self._dsn, self._settings, identity, self._vitals, self._application, links, previous)
                await run_incarnation(our, self._draining)
            except DatabaseUnavailable as error:
                logger.warning("waiting for PostgreSQL: {}", error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._draining.wait()
                pause = min(pause * 2, LONGEST_PAUSE)
            except ActorKeptFailing as failure:
                if not isinstance(failure.error, LeaseLost):
                    logger.error("{}", failure)
                    return 1
                logger.warning("given up by its peers: everything is dropped, the server starts afresh")
            previous = identity.id if identity.joined else previous
        return 0
