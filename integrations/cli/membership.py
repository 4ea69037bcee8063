"""The servers as people see them: `queued-tasks servers`, and what other commands say of servers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from rich.console import Group, RenderableType
from rich.text import Text

from ...runtime.intake import Intake
from ...runtime.store.link import Row
from ...runtime.task import Json
from ..words import ago, span, state, visible
from .desk import Desk, desk
from .live import live
from .output import Column, console, document, grid

GONE = ("lost", "stopped")

_BEAT = 2.0  # seconds
_COLUMNS = (
    Column("NAME", gives=True),
    Column("HOST", gives=True, spare=7),
    Column("ID", spare=8),
    Column("STATE"),
    Column("WORKERS", right=True),
    Column("BUSY/FREE", right=True),
    Column("TAKEN", right=True, spare=2),
    Column("DONE", right=True, spare=1),
    Column("LOAD", right=True, spare=4),
    Column("MEMORY", right=True, spare=3),
    Column("VERSION", spare=5),
    Column("UP", spare=6),
    Column("BEAT"),
)


async def show_servers(*, as_json: bool, watch: bool = False) -> None:
    """Print the servers that run, and those that ended or were lost within the hour; with `watch` on and on."""
    async with desk() as at:
        if as_json:
            document([server_row(row, at.settings.lease_ttl) for row in await at.reads.servers()])
        elif watch:
            await live(lambda width, _: _picture(at, width), every=_BEAT / 2)
        else:
            out = console()
            out.print(await _picture(at, out.width))


async def _picture(at: Desk, width: int) -> RenderableType:
    rows = await at.reads.servers()
    if not rows:
        return Text("No servers. Start one with `queued-tasks start --app main:app`.")
    return Group(
        servers_grid(rows, at.settings.lease_ttl, width),
        *(Text(f"\n{row['name']} takes {visible(taken)}") for row in rows if row["present"] and (taken := _taken(row))),
        *(Text(f"\n{name}: {visible(error)}", style="red") for name, error in errors_of(rows).items()),
    )


def servers_grid(rows: Sequence[Row], lease_ttl: timedelta, width: int) -> RenderableType:
    """The servers as a table."""
    return grid(_COLUMNS, [_line(row, server_row(row, lease_ttl)) for row in rows], width)


def errors_of(rows: Sequence[Row]) -> dict[str, str]:
    """What is wrong with the workers of servers, by what they are called: a failing import, a loop that is blocked."""
    present = [row for row in rows if row["present"]]
    names = called(present)
    said = {names[row["id"]]: details_of(row).get("error") for row in present}
    return {name: error.strip() for name, error in said.items() if error}


def called(rows: Sequence[Row]) -> dict[UUID, str]:
    """What to call each of these servers, by their ids: its name, with the id where several have it."""
    names = Counter(row["name"] for row in rows)
    return {row["id"]: row["name"] if names[row["name"]] == 1 else f"{row['name']} ({row['id']})" for row in rows}


def server_row(row: Row, lease_ttl: timedelta) -> dict[str, Json]:
    """One server as a row of --json. One that has been silent for longer than its lease is `lost`."""
    details = details_of(row)
    slots, busy = row["slots"] or 0, row["busy"] or 0
    return {
        "id": row["id"],
        "name": row["name"],
        "host": row["host"],
        "state": state_of(row, lease_ttl),
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
        "excluded_channels": details.get("excluded_channels", []),
        "kinds": {name: kind["workers"] for name, kind in (details.get("kinds") or {}).items()},
    }


def state_of(row: Row, lease_ttl: timedelta) -> str:
    """The state of a server; `lost`: given up by its peers, or silent for longer than its lease."""
    if not row["present"]:
        return "lost" if row["end_reason"] == "lost" else "stopped"
    return "lost" if row["silent_for"] > lease_ttl.total_seconds() else str(row["state"])


def details_of(row: Row) -> dict[str, Any]:
    """What a server says of itself beyond the columns of its heartbeat."""
    details: dict[str, Any] = json.loads(row["details"] or "{}")
    return details


def _line(row: Row, server: Mapping[str, Json]) -> list[str | Text]:
    last = row["beat_at"] or row["ended_at"]
    names = [server["name"], server["host"], str(server["id"]), state(server["state"])]
    if server["state"] in GONE:
        return [*names, *[""] * 6, server["version"], "", ago(last)]
    load, memory = server["load"], server["memory"]
    return [
        *names,
        _workers(row["workers"] or 0, details_of(row).get("kinds") or {}),
        f"{server['busy']:,}/{server['free']:,}",
        f"{server['claimed_per_minute']:,.0f}",
        f"{server['settled_per_minute']:,.0f}",
        f"{load:.2f}" if isinstance(load, int | float) else "",
        f"{memory / 2**20:,.0f} MiB" if isinstance(memory, int | float) else "",
        server["version"],
        span(max((datetime.now(UTC) - server["started_at"]).total_seconds(), 0.0)),
        span(round(max(row["silent_for"], 0), 1)),
    ]


def _taken(row: Row) -> str:
    details = details_of(row)
    return str(Intake(tuple(details.get("channels", ())), tuple(details.get("excluded_channels", ()))))


def _workers(count: int, kinds: Mapping[str, Mapping[str, int]]) -> str:
    """How many there are, those of each kind where there are two."""
    several = {name: kind["workers"] for name, kind in kinds.items() if kind["workers"]}
    return (
        str(count)
        if len(several) < 2
        else " + ".join(f"{of} {name}" if name == "sync" else str(of) for name, of in several.items())
    )
