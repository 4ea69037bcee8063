"""The screen of `top`, drawn from one look: it fits whatever size the terminal has, and more room shows more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.text import Text

from ...runtime.store.gates import ChannelRow
from ...runtime.store.link import Row
from ...runtime.store.overview import Overview
from ..words import plural, span, state, visible
from .channels import channel_state
from .membership import GONE, servers_grid, state_of
from .output import Column, grid

_CHANNELS = (
    Column("CHANNEL", gives=True),
    Column("RUNNING", right=True),
    Column("WAITING", right=True),
    Column("LIMITS", gives=True),
    Column("STATE"),
)
_RUNNING = (
    Column("RUNNING", gives=True),
    Column("FOR", right=True),
    Column("SERVER", gives=True),
    Column("CHANNEL", room=110, gives=True),
    Column("ATTEMPT", room=100, right=True),
    Column("ID"),
)
_FAILED = (
    Column("FAILED", gives=True),
    Column("AGO", right=True),
    Column("ERROR", gives=True),
    Column("ID", room=100),
)
_RARE = ("cancelled", "stopped")  # states that are shown only when a task is in them
_LONGEST = 200  # characters of an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What there was to see at one moment."""

    at: datetime
    seen: Overview
    counts: Mapping[str, int]
    servers: Sequence[Row]
    channels: Sequence[ChannelRow]
    running: Sequence[Row]
    failures: Sequence[Row]
    claimed_per_minute: float
    settled_per_minute: float


def draw(look: Look, *, width: int, height: int, lease_ttl: timedelta) -> RenderableType:
    """The whole screen."""
    head = [_title(look, width), _states(look), *_alert(look)]
    parts = (look.servers, look.channels, look.running, look.failures)
    # a heading and an empty line for each part, and the footer
    rooms = share(height - len(head) - 2 * len(parts) - 1, [max(len(part), 1) for part in parts])
    drawn = (
        servers_grid(look.servers[: rooms[0]], lease_ttl, width) if look.servers else _dim("No servers."),
        _grid(_CHANNELS, [_channel(row) for row in look.channels[: rooms[1]]], width, "No channel has had a task yet."),
        _grid(_RUNNING, [_run(row) for row in look.running[: rooms[2]]], width, "Nothing runs."),
        _grid(_FAILED, [_failure(row) for row in look.failures[: rooms[3]]], width, "Nothing has failed."),
    )
    lines: list[RenderableType] = [*head]
    for part in drawn:
        lines += [Text(), part]
    return Group(*lines, _footer(look, rooms))


def share(room: int, wants: Sequence[int]) -> list[int]:
    """Lines for each part, at least one: as many as it wants, or a fair share of the room."""
    given = [1] * len(wants)
    while sum(given) < room and any(has < want for has, want in zip(given, wants, strict=True)):
        _, poorest = min((has, place) for place, has in enumerate(given) if has < wants[place])
        given[poorest] += 1
    return given


def _title(look: Look, width: int) -> Text:
    seen = look.seen
    up = [row for row in look.servers if row["present"]]
    slots, busy = sum(row["slots"] or 0 for row in up), sum(row["busy"] or 0 for row in up)
    left = Text.assemble(
        ("Queued Tasks", "bold cyan"),
        f"  {plural(seen.servers, 'server')}, {busy:,} of {slots:,} slots busy,"
        f" {look.claimed_per_minute:,.0f} taken/min, {look.settled_per_minute:,.0f} done/min",
        no_wrap=True,
        overflow="ellipsis",
    )
    clock = f"{look.at.astimezone():%H:%M:%S}"
    if left.cell_len + len(clock) + 2 <= width:
        left.append(clock.rjust(width - left.cell_len), style="dim")
    return left


def _states(look: Look) -> Text:
    shown = {name: count for name, count in look.counts.items() if count or name not in _RARE}
    line = Text("  ").join(Text.assemble((f"{count:,} ", "bold"), state(name)) for name, count in shown.items())
    if look.seen.oldest_waiting is not None:
        line.append(f"  oldest waits {span(look.seen.oldest_waiting)}", style="yellow" if look.seen.stuck else "dim")
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _alert(look: Look) -> list[Text]:
    if look.seen.claiming:
        return []
    return [Text("No server takes tasks: `queued-tasks doctor` says why.", style="bold red", no_wrap=True)]


def _grid(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], width: int, nothing: str) -> RenderableType:
    return grid(columns, rows, width) if rows else _dim(nothing)


def _dim(text: str) -> Text:
    return Text(text, style="dim", no_wrap=True)


def _channel(row: ChannelRow) -> list[str | Text]:
    return [row.gate.channel, f"{row.running:,}", f"{row.waiting:,}", row.gate.limits or "-", channel_state(row)]


def _run(row: Row) -> list[str | Text]:
    server, attempt = row["server_name"] or "", str(row["attempt"])
    return [row["name"], span(row["runs_for"]), server, row["channel"], attempt, str(row["id"])]


def _failure(row: Row) -> list[str | Text]:
    message = (row["exception_message"] or "").strip().partition("\n")[0]
    error = ": ".join(part for part in (row["exception_name"], message) if part)
    return [row["name"], span(row["ended_ago"]), Text(visible(error)[:_LONGEST], "red"), str(row["id"])]


def _footer(look: Look, rooms: Sequence[int]) -> Text:
    total = look.running[0]["total"] if look.running else 0
    hidden = [
        (len(look.servers) - rooms[0], "server"),
        (len(look.channels) - rooms[1], "channel"),
        (total - rooms[2], "running task"),
    ]
    more = ", ".join(plural(count, noun) for count, noun in hidden if count > 0)
    return Text(f"q ends.{f' Not shown: {more}.' if more else ''}", style="dim", no_wrap=True, overflow="ellipsis")


def up(rows: Sequence[Row], lease_ttl: timedelta) -> list[Row]:
    """The servers that are there."""
    return [row for row in rows if state_of(row, lease_ttl) not in GONE]
