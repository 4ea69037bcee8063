"""The command `doctor`: look at everything that may be wrong, and say what to do about it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

from rich.text import Text

from ...runtime.alike import alike
from ...runtime.database import prepare, with_key
from ...runtime.errors import ConfigurationError, DatabaseUnavailable, QueuedTasksError, SchemaOutdated
from ...runtime.settings import Settings
from ...runtime.store.gates import GateStore
from ...runtime.store.link import Link
from ...runtime.store.overview import overview
from ...runtime.store.reads import Reads
from ...runtime.store.schedules import ScheduleStore
from ..words import plural, visible
from . import findings
from .findings import Finding, Level
from .listening import of_listening
from .membership import GONE, state_of
from .output import document, say

UNHEALTHY = 3

_OPEN_FOR = 600.0  # seconds after which a transaction is long
_DEAD = 100_000  # rows
_BY_ITSELF = 90.0  # seconds that servers have for what they do on their own
_MOST = 1_000  # tasks that are counted
_NAMED = 3
_STYLES = {Level.CRITICAL: "bold red", Level.ERROR: "red", Level.WARNING: "yellow"}

Check: TypeAlias = Callable[[], Awaitable[Iterable[Finding]]]


async def show_doctor(*, as_json: bool) -> int:
    """Print what is wrong, the worst first; return 0 when nothing is, 3 when nothing can run, else 1."""
    found = sorted([finding async for finding in examine(Settings())], key=lambda each: [*Level].index(each.level))
    critical = any(each.level is Level.CRITICAL for each in found)
    if as_json:
        document(
            {
                "healthy": not critical,
                "findings": [
                    {"check": each.check, "level": each.level, "finding": each.finding, "cure": each.cure}
                    for each in found
                ],
            }
        )
    else:
        _print(found)
    return UNHEALTHY if critical else 1 if found else 0


async def examine(settings: Settings, *, open_for: float = _OPEN_FOR, dead: int = _DEAD) -> AsyncIterator[Finding]:
    """Everything that is wrong. `open_for`: seconds after which a transaction is long; `dead`: rows that are many."""
    try:
        dsn = await prepare(settings)
    except (ConfigurationError, DatabaseUnavailable, SchemaOutdated) as error:
        yield _no_database(error)
        return
    link = Link(dsn, settings.schema, name="doctor", statement_cache=0)  # whatever stands in between
    try:
        checkup = _Checkup(with_key(settings), dsn, link, open_for, dead)
        for check in checkup.all():
            try:
                for finding in await check():
                    yield finding
            except QueuedTasksError as error:
                yield _unseen(check.__name__.strip("_"), error)
    finally:
        await link.close()


class _Checkup:
    """The checks, over one link."""

    def __init__(self, settings: Settings, dsn: str, link: Link, open_for: float, dead: int) -> None:
        self._settings = settings
        self._dsn = dsn
        self._link = link
        self._open_for = open_for
        self._dead = dead
        self._reads = Reads(link)

    def all(self) -> Sequence[Check]:
        """In this order; each can be made whatever became of the others."""
        return (
            self._database,
            self._rights,
            self._notifications,
            self._vacuum,
            self._servers,
            self._differences,
            self._tasks,
            self._functions,
            self._schedules,
            self._waiting,
        )

    async def _database(self) -> Iterable[Finding]:
        began = time.time()
        row = await self._link.fetch_one("check_database")
        assert row is not None
        return findings.of_database(row, (began + time.time()) / 2)

    async def _rights(self) -> Iterable[Finding]:
        lacking = [row["right"] for row in await self._link.fetch("check_rights")]
        row = await self._link.fetch_one("check_database")
        assert row is not None
        return findings.of_rights(lacking, row["user"])

    async def _notifications(self) -> Iterable[Finding]:
        return [finding async for finding in of_listening(self._settings, self._dsn, self._link)]

    async def _vacuum(self) -> Iterable[Finding]:
        holders = await self._link.fetch("check_transactions", self._open_for)
        return findings.of_vacuum(holders, await self._link.fetch("check_tables", self._dead))

    async def _servers(self) -> Iterable[Finding]:
        return findings.of_servers(await self._reads.servers(), self._settings.lease_ttl)

    async def _differences(self) -> Iterable[Finding]:
        rows = await self._reads.servers()
        up = [row for row in rows if state_of(row, self._settings.lease_ttl) not in GONE]
        gates = {row.gate.channel: row.gate for row in await GateStore(self._link).look()}
        return findings.of_settings(up, alike(self._settings), gates)

    async def _tasks(self) -> Iterable[Finding]:
        return findings.of_tasks(await self._link.fetch("check_tasks", _BY_ITSELF, _MOST, _NAMED))

    async def _functions(self) -> Iterable[Finding]:
        return findings.of_functions(await self._link.fetch("check_functions", _MOST))

    async def _schedules(self) -> Iterable[Finding]:
        running = {row["name"] for row in await self._link.fetch("running_schedules")}
        return findings.of_schedules(await ScheduleStore(self._link).look(), running)

    async def _waiting(self) -> Iterable[Finding]:
        seen = await overview(self._link, self._settings.lease_ttl)
        return [findings.of_waiting(seen.oldest_waiting, seen.free)] if seen.stuck and seen.oldest_waiting else []


def _no_database(error: QueuedTasksError) -> Finding:
    if isinstance(error, DatabaseUnavailable):
        cure = "See whether it runs, whether this host may reach it, and whether QUEUE_DATABASE_URL is right."
        return Finding("connection", Level.CRITICAL, str(error), cure)
    if isinstance(error, SchemaOutdated):
        return Finding("schema", Level.CRITICAL, str(error), "Run `queued-tasks migrate`.")
    return Finding("connection", Level.CRITICAL, str(error), "Correct the setting.")


def _unseen(check: str, error: QueuedTasksError) -> Finding:
    return Finding(check, Level.ERROR, f"This could not be looked at: {error}", "Correct that, then look again.")


def _print(found: Sequence[Finding]) -> None:
    for each in found:
        say(Text.assemble((f"{each.level:9}", _STYLES[each.level]), visible(each.finding)))
        say(Text(f"{'':9}{visible(each.cure)}", style="cyan"))
    if found:
        say(Text(f"\n{plural(len(found), 'finding')}.", style="bold"))
    else:
        say(Text("Nothing is wrong.", style="green"))
