"""The commands about the whole: status, servers, stats."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rich.text import Text

from ...runtime.database import is_embedded
from ...runtime.errors import DatabaseUnavailable, SchemaOutdated
from ...runtime.settings import Settings
from ...runtime.store.overview import Overview, overview
from ...runtime.task import Json
from ..words import plural, span, state, visible
from .desk import desk
from .membership import GONE, errors_of, server_row
from .output import Column, complain, document, facts, say, table

UNHEALTHY = 3


@dataclass(frozen=True, slots=True)
class Condition:
    """What `status` found: how the whole is, and what is wrong."""

    seen: Overview
    counts: dict[str, int]
    errors: dict[str, str]

    @property
    def problem(self) -> str | None:
        if not self.seen.claiming:
            cure = "see `queued-tasks servers`." if self.seen.servers else "start one with `queued-tasks start`."
            return f"no server is taking tasks: {cure}"
        return None


async def show_status(*, check: bool, as_json: bool) -> int:
    """Print how the whole is on one screen; with `check` return 3 when nobody takes tasks or the database is away."""
    settings = Settings()
    try:
        async with desk() as at:
            servers = errors_of(await at.reads.servers())
            found = Condition(await overview(at.link, settings.lease_ttl), await at.reads.counts(), servers)
    except (DatabaseUnavailable, SchemaOutdated) as error:
        if as_json:
            document({"healthy": False, "problem": str(error), "database": None, "servers": None, "tasks": None})
        if not check:
            raise
        complain(str(error))
        return UNHEALTHY
    if as_json:
        document(_status_row(found, settings))
    else:
        _print_status(found, settings)
    if check and found.problem:
        complain(found.problem)
        return UNHEALTHY
    return 0


async def show_stats(*, as_json: bool) -> None:
    """Print how many tasks are in each state, and how busy the servers are."""
    async with desk() as at:
        counts = await at.reads.counts()
        servers = [server_row(row, at.settings.lease_ttl) for row in await at.reads.servers()]
    up = [server for server in servers if server["state"] not in GONE]
    totals = Counter({"workers": 0, "busy": 0, "free": 0})
    for server in up:
        totals.update({name: server[name] for name in totals})
    if as_json:
        document({**counts, "servers": len(up), **totals})
        return
    table(
        [Column("STATE"), Column("TASKS", right=True)],
        [[state(name), f"{count:,}"] for name, count in counts.items()],
    )
    say(f"\n{_capacity(len(up), totals)}")


def _status_row(found: Condition, settings: Settings) -> dict[str, Json]:
    seen = found.seen
    return {
        "healthy": found.problem is None,
        "problem": found.problem,
        "database": {
            "version": seen.version,
            "schema": settings.schema,
            "migration": seen.migration,
            "embedded": is_embedded(settings),
        },
        "servers": {"running": seen.servers, "claiming": seen.claiming, "free": seen.free},
        "tasks": found.counts,
        "oldest_waiting_seconds": seen.oldest_waiting,
        "errors": found.errors,
    }


def _print_status(found: Condition, settings: Settings) -> None:
    seen = found.seen
    kind = ", embedded" if is_embedded(settings) else ""
    waits = seen.oldest_waiting
    facts(
        [
            ("database", f"PostgreSQL {seen.version}{kind}; schema {settings.schema}, migration {seen.migration}"),
            ("servers", f"{seen.servers} running, {seen.claiming} taking tasks, {plural(seen.free, 'free slot')}"),
            ("tasks", _counted(found.counts)),
            ("oldest", "no task is kept waiting" if waits is None else f"a task has been waiting for {span(waits)}"),
        ]
    )
    for name, error in found.errors.items():
        say(Text(f"\n{name}: {visible(error.splitlines()[-1])}", style="red"))
    say()
    say(Text(f"Attention: {found.problem}", style="red") if found.problem else Text("All is well.", style="green"))


def _counted(counts: dict[str, int]) -> str | Text:
    some = [Text.assemble(f"{count:,} ", state(name)) for name, count in counts.items() if count]
    return Text(", ").join(some) if some else "none yet"


def _capacity(servers: int, totals: Counter[str]) -> str:
    if not servers:
        return "No server is running: start one with `queued-tasks start`."
    return (
        f"{plural(servers, 'server')} with {plural(totals['workers'], 'worker')}: "
        f"{totals['busy']:,} busy, {plural(totals['free'], 'free slot')}."
    )
