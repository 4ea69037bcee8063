"""The commands about the whole: status, servers, stats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.text import Text

from ...runtime.database import is_embedded
from ...runtime.errors import DatabaseUnavailable, SchemaOutdated
from ...runtime.settings import Settings
from ...runtime.store.link import Row
from ...runtime.store.overview import Overview, overview
from ...runtime.task import Json
from .desk import desk
from .output import Column, ago, complain, document, facts, plural, say, span, state, table, visible

UNHEALTHY = 3
GONE = ("lost", "stopped")

_COLUMNS = (
    Column("NAME", gives=True),
    Column("ID", room=150),
    Column("STATE"),
    Column("WORKERS", right=True),
    Column("BUSY", right=True),
    Column("DONE/MIN", room=110, right=True),
    Column("LOAD", room=80, right=True),
    Column("MEMORY", room=110, right=True),
    Column("VERSION", room=100),
    Column("UP", room=80),
    Column("LAST BEAT"),
)


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


async def show_servers(*, as_json: bool) -> None:
    """Print the servers that run, and those that ended or were lost within the hour."""
    async with desk() as at:
        rows = await at.reads.servers()
    found = [server_row(row, at.settings.lease_ttl) for row in rows]
    if as_json:
        document(found)
    elif found:
        table(_COLUMNS, [_line(server) for server in found])
        for name, error in errors_of(rows).items():
            say(Text(f"\n{name}: {visible(error)}", style="red"))
    else:
        say("No servers. Start one with `queued-tasks start --app main:app`.")


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


def errors_of(rows: Sequence[Row]) -> dict[str, str]:
    """What keeps servers from taking tasks, by their names: the errors of applications that can't be imported."""
    said = {row["name"]: json.loads(row["details"] or "{}").get("error") for row in rows if row["present"]}
    return {name: error.strip() for name, error in said.items() if error}


def server_row(row: Row, lease_ttl: timedelta) -> dict[str, Json]:
    """One server as a row of --json. One that has been silent for longer than its lease is `lost`."""
    details: dict[str, Any] = json.loads(row["details"] or "{}")
    slots, busy = row["slots"] or 0, row["busy"] or 0
    return {
        "id": row["id"],
        "name": row["name"],
        "host": row["host"],
        "state": _state_of(row, lease_ttl),
        "version": row["version"],
        "workers": row["workers"] or 0,
        "slots": slots,
        "busy": busy,
        "free": max(slots - busy, 0),
        "claimed_per_minute": details.get("claimed_per_minute", 0),
        "settled_per_minute": details.get("settled_per_minute", 0),
        "load": details.get("load"),
        "memory": details.get("memory"),
        "started_at": row["started_at"],
        "beat_at": row["beat_at"],
        "channels": details.get("channels", []),
    }


def _state_of(row: Row, lease_ttl: timedelta) -> str:
    if not row["present"]:
        return "lost" if row["end_reason"] == "lost" else "stopped"
    return "lost" if row["silent_for"] > lease_ttl.total_seconds() else str(row["state"])


def _line(server: dict[str, Json]) -> list[str | Text]:
    gone = server["state"] in GONE
    load, memory = server["load"], server["memory"]
    return [
        server["name"],
        str(server["id"]),
        state(server["state"]),
        "" if gone else str(server["workers"]),
        "" if gone else f"{server['busy']} of {server['slots']}",
        "" if gone else f"{server['settled_per_minute']:,.0f}",
        f"{load:.2f}" if isinstance(load, int | float) and not gone else "",
        f"{memory / 2**20:,.0f} MiB" if isinstance(memory, int | float) and not gone else "",
        server["version"],
        "" if gone else ago(server["started_at"]).removesuffix(" ago"),
        ago(server["beat_at"]) if server["beat_at"] else "",
    ]


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
        say(Text(f"\n{name} can't import its app: {visible(error.splitlines()[-1])}", style="red"))
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
