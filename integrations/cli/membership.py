"""The servers as people see them: `queued-tasks servers`, and what other commands say of servers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rich.text import Text

from ...runtime.store.link import Row
from ...runtime.task import Json
from .desk import desk
from .output import Column, ago, document, say, state, table, visible

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
    }


def state_of(row: Row, lease_ttl: timedelta) -> str:
    """The state of a server; `lost`: given up by its peers, or silent for longer than its lease."""
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
