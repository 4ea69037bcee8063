"""The command `top`: servers, channels, tasks and failures on one live screen."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import RenderableType

from ...runtime.settings import Settings
from ...runtime.store.gates import GateStore
from ...runtime.store.link import Link
from ...runtime.store.overview import overview
from ...runtime.store.reads import Reads
from ...runtime.task import Json
from .channels import channel_row
from .desk import Desk, desk
from .live import live
from .membership import server_row
from .output import document
from .top_screen import Look, draw, up

_EVERY = 1.0  # seconds
_RUNNING = 100  # tasks at most
_FAILURES = 20


async def show_top(*, as_json: bool) -> None:
    """Show what goes on until `q` or Ctrl-C; print it once where there is no terminal, or as a document."""
    async with desk() as at:
        if as_json:
            document(_row(await look_at(at.link, at.settings), at))
        else:
            await live(lambda width, height: _picture(at, width, height), every=_EVERY)


async def _picture(at: Desk, width: int, height: int) -> RenderableType:
    return draw(await look_at(at.link, at.settings), width=width, height=height, lease_ttl=at.settings.lease_ttl)


async def look_at(link: Link, settings: Settings) -> Look:
    """Read all that is shown, once."""
    reads, lease_ttl = Reads(link), settings.lease_ttl
    servers = await reads.servers()
    rates = [server_row(row, lease_ttl) for row in up(servers, lease_ttl)]
    return Look(
        at=datetime.now(UTC),
        seen=await overview(link, lease_ttl),
        counts=await reads.counts(),
        servers=servers,
        channels=await GateStore(link).look(),
        running=await reads.running(limit=_RUNNING),
        failures=await reads.failures(limit=_FAILURES),
        claimed_per_minute=sum(row["claimed_per_minute"] for row in rates),
        settled_per_minute=sum(row["settled_per_minute"] for row in rates),
    )


def _row(look: Look, at: Desk) -> dict[str, Json]:
    return {
        "at": look.at,
        "tasks": dict(look.counts),
        "oldest_waiting_seconds": look.seen.oldest_waiting,
        "claimed_per_minute": look.claimed_per_minute,
        "settled_per_minute": look.settled_per_minute,
        "servers": [server_row(row, at.settings.lease_ttl) for row in look.servers],
        "channels": [channel_row(row) for row in look.channels],
        "running": [
            {
                "id": row["id"],
                "name": row["name"],
                "channel": row["channel"],
                "attempt": row["attempt"],
                "server": row["server_name"],
                "seconds": row["runs_for"],
            }
            for row in look.running
        ],
        "failures": [
            {
                "id": row["id"],
                "name": row["name"],
                "channel": row["channel"],
                "attempt": row["attempt"],
                "exception_name": row["exception_name"],
                "exception_message": row["exception_message"],
                "seconds_ago": row["ended_ago"],
            }
            for row in look.failures
        ],
    }
