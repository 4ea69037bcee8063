"""The commands about channels: their limits, and what runs and waits in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rich.text import Text

from ...runtime.announce import Announcer, wake_topic
from ...runtime.gates import Gate
from ...runtime.store.gates import ChannelRow, GateStore
from ...runtime.task import Json
from .desk import Desk, desk
from .output import Column, document, say, table

_ANY_LANE = 0
_COLUMNS = (
    Column("NAME", gives=True),
    Column("CAP", right=True),
    Column("PER KEY", room=70, right=True),
    Column("RATE", right=True),
    Column("RUNNING", right=True),
    Column("WAITING", right=True),
    Column("STATE"),
)


async def list_channels(*, as_json: bool) -> None:
    """Print every channel that has limits or has ever had a task."""
    async with desk() as at:
        rows = await GateStore(at.link).look()
    if as_json:
        document([channel_row(row) for row in rows])
    elif rows:
        table(_COLUMNS, [_line(row) for row in rows])
    else:
        say('No channels yet. A channel comes with its first task: add_task(..., channel="mail").')


async def set_channel(wanted: Gate) -> None:
    """Set the limits of a channel, at once and for all servers; whether it is paused stays as it is."""
    async with desk() as at:
        gate = await _change(at, wanted.channel, lambda gate: replace(wanted, paused=gate.paused))
    say(f"{gate.channel}: {gate.limits or 'no limits'}{', paused' if gate.paused else ''}")


async def pause_channel(name: str) -> None:
    """Let nothing of a channel start, on any server. What runs goes on."""
    async with desk() as at:
        await _change(at, name, lambda gate: replace(gate, paused=True))
    say(f"{name} is paused: what runs goes on, nothing else starts. `queued-tasks channels resume {name}` ends it.")


async def resume_channel(name: str) -> None:
    """Let the tasks of a paused channel start again; a cap of 0 goes with it."""
    async with desk() as at:
        await _change(at, name, lambda gate: replace(gate, paused=False, cap=gate.cap or None))
    say(f"{name} goes on.")


async def _change(at: Desk, channel: str, change: Callable[[Gate], Gate]) -> Gate:
    gate = await GateStore(at.link).change(channel, change)
    announcer = Announcer(at.link, wake_topic(at.settings))
    announcer.lined({_ANY_LANE: 1})
    await announcer.close()
    return gate


def _is_paused(gate: Gate) -> bool:
    return gate.paused or gate.cap == 0


def channel_row(row: ChannelRow) -> dict[str, Json]:
    """A channel as a row of --json."""
    gate = row.gate
    return {
        "name": gate.channel,
        "cap": gate.cap,
        "per_server": gate.per_server,
        "key_cap": gate.key_cap,
        "rate": None if gate.rate is None else str(gate.rate),
        "running": row.running,
        "waiting": row.waiting,
        "paused": _is_paused(gate),
    }


def channel_state(row: ChannelRow) -> Text:
    """Whether more of its tasks may start, in its colour."""
    gate = row.gate
    if _is_paused(gate):
        return Text("paused", "yellow")
    full = gate.cap is not None and not gate.per_server and row.running >= gate.cap
    return Text("full", "cyan") if full else Text("open", "green")


def _line(row: ChannelRow) -> list[str | Text]:
    gate = row.gate
    return [
        gate.channel,
        "-" if gate.cap is None else f"{gate.cap}{'/server' if gate.per_server else ''}",
        "-" if gate.key_cap is None else str(gate.key_cap),
        "-" if gate.rate is None else str(gate.rate),
        f"{row.running:,}",
        f"{row.waiting:,}",
        channel_state(row),
    ]
