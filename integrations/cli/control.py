"""What `queued-tasks servers drain`, `resume`, `stop` and `scale` do: write what is wanted, wake whom it concerns."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from ...runtime.announce import Announcer, wake_topic
from ...runtime.store.link import Row
from ...runtime.store.servers import Intent, ServerStore
from ...runtime.task import ServerId
from ..words import plural, span
from .ask import confirm
from .desk import Desk, desk
from .membership import GONE, state_of
from .output import complain, say

_LOOK_EVERY = 0.5  # seconds
_SHOWN = 5  # tasks that still run, by their names


async def drain(name: str, *, wait: bool, yes: bool) -> int:
    """Let the servers of this name finish what runs; with `wait` return once they have. Return the exit code."""
    async with desk() as at:
        found = await _named(at, name)
        if not found:
            return 1
        if not yes and not confirm(f"Drain {_titles(found)}? No tasks are taken until `queued-tasks servers resume`."):
            return 1
        told = await _direct(at, found, Intent.DRAIN)
        _report(at, found, told, "finishes what runs and takes no more tasks")
        if wait and told:
            return max(await _drained(at, told), 0 if len(told) == len(found) else 1)
    return 0 if len(told) == len(found) else 1


async def resume(name: str) -> int:
    """Let the servers of this name take tasks again. Return the exit code."""
    return await _tell(name, Intent.RUN, "takes tasks again")


async def stop(name: str) -> int:
    """Let the servers of this name leave. Return the exit code."""
    return await _tell(name, Intent.STOP, "leaves once what runs has finished, or its grace is over")


async def scale(name: str, workers: int) -> int:
    """Let the servers of this name have so many workers. Return the exit code."""
    return await _tell(name, None, f"goes to {plural(workers, 'worker')}, as with `start --workers {workers}`", workers)


async def _tell(name: str, intent: Intent | None, outcome: str, workers: int | None = None) -> int:
    async with desk() as at:
        found = await _named(at, name)
        told = await _direct(at, found, intent, workers)
        _report(at, found, told, outcome)
    return 0 if found and len(told) == len(found) else 1


async def _named(at: Desk, name: str) -> list[Row]:
    """The servers of that name, or with that id, that are there; none is said on stderr."""
    present = [row for row in await at.reads.servers() if row["present"]]
    found = [row for row in present if name in (row["name"], str(row["id"]))]
    if not found:
        names = ", ".join(sorted({row["name"] for row in present}))
        cure = f"There are: {names}." if names else "None is running: start one with `queued-tasks start`."
        complain(f"no server is called {name!r}. {cure}")
    return found


async def _direct(at: Desk, found: Sequence[Row], intent: Intent | None, workers: int | None = None) -> set[ServerId]:
    """Write what is wanted, and tell the servers to look."""
    told = await ServerStore(at.link).direct([row["id"] for row in found], intent=intent, workers=workers)
    announcer = Announcer(at.link, wake_topic(at.settings))
    announcer.wished(told)
    await announcer.close()
    return told


def _report(at: Desk, found: Sequence[Row], told: Collection[ServerId], outcome: str) -> None:
    ambiguous = len(found) > 1
    for row in found:
        title = _title(row, ambiguous)
        if row["id"] not in told:
            complain(f"{title} is leaving, or has left: nothing can be wanted of it any more.")
        elif state_of(row, at.settings.lease_ttl) == "lost":
            say(f"{title} has been silent for {span(row['silent_for'])}: if it comes back, it {outcome}.")
        else:
            say(f"{title} {outcome}.")


async def _drained(at: Desk, servers: Collection[ServerId]) -> int:
    """Wait until these servers are drained, and say what still runs whenever that changes."""
    said, lost = "", False
    left = set(servers)
    while left:
        rows = {row["id"]: row for row in await at.reads.servers()}
        for server in sorted(left):
            condition = state_of(rows[server], at.settings.lease_ttl) if server in rows else "stopped"
            if condition == "drained" or condition in GONE:
                left.discard(server)
                lost |= condition == "lost"
                title = _title(rows[server], len(servers) > 1) if server in rows else str(server)
                say(f"{title} is {condition}." if condition != "lost" else f"{title} is lost: its tasks run elsewhere.")
        news = await _still_running(at, left)
        if left and news != said:
            say(said := news)
        if left:
            await asyncio.sleep(_LOOK_EVERY)
    return 1 if lost else 0


async def _still_running(at: Desk, servers: Collection[ServerId]) -> str:
    running = await at.reads.running(list(servers), limit=_SHOWN)
    if not running:
        return "Nothing runs any more: the outcomes are recorded."
    names = ", ".join(f"{row['name']} {row['id']}" for row in running)
    more = running[0]["total"] - len(running)
    verb = "runs" if running[0]["total"] == 1 else "run"
    return f"{plural(running[0]['total'], 'task')} still {verb}: {names}{f' and {more:,} more' if more else ''}."


def _titles(found: Sequence[Row]) -> str:
    if len(found) == 1:
        return str(found[0]["name"])
    return f"the {len(found)} servers called {found[0]['name']}"


def _title(row: Row, ambiguous: bool) -> str:
    return f"{row['name']} ({row['id']})" if ambiguous else str(row["name"])
