"""The figures as tables, a line as soon as it is known."""

from __future__ import annotations

from .compare import Result
from .scale import Figures


class Scale:
    """What so many servers cost."""

    LEGEND = """\
servers      so many, each with 10 slots and 4 connections
conns        connections that the servers hold
idle tx/s    transactions a second while there is nothing to do; /srv: of one server; PG: CPU of all processes of
             PostgreSQL in % of a core; sim: of the simulation, so all servers together
work         the same while there are tasks: every half a second one of 1 s for each server, added in one batch
wait p50 p95 ms from the enqueue of a task to its start
max/mean     how many times as much as the average the busiest server ran; none: servers that ran nothing;
             lost: servers that the others took for dead, because they did not beat in time
death s      from the kill of a server until another one takes over what it held; - not within 30 s"""
    HEAD = (
        "servers  conns │ idle tx/s   /srv    PG%   sim% │ work tx/s   /srv    PG%   sim% "
        "│ wait p50    p95 │ max/mean  none  lost │ death s"
    )

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._say(self.LEGEND, "", self.HEAD)

    def line(self, it: Figures) -> Figures:
        """Print one more; it is returned."""
        loads = " │ ".join(
            f"{load.transactions:9.0f} {load.transactions / it.servers:6.1f} "
            f"{100 * load.postgres:6.0f} {100 * load.simulation:6.0f}"
            for load in (it.idle, it.work)
        )
        noticed = "-" if it.noticed is None else f"{it.noticed:.1f}"
        waits = f"{1000 * it.wait:8.0f} {1000 * it.latest:6.0f}"
        shares = f"{it.spread:8.2f} {it.took_none:5} {it.given_up:5}"
        self._say(f"{it.servers:7} {it.connections:6} │ {loads} │ {waits} │ {shares} │ {noticed:>7}")
        return it

    def _say(self, *lines: str) -> None:
        if not self._quiet:
            print(*lines, sep="\n", flush=True)


class Comparison:
    """The sharing of new tasks beside its absence."""

    LEGEND = """\
who takes    free: whoever is free takes what there is; share: the same, but new tasks are shared first
fair         the first server's part by slots and speed
part         what it ran, in % (median of the rounds, and from - to)
wait ms      from the enqueue of a task to its start (median)
all done s   from the enqueue to the end of the last one (median)"""
    HEAD = f"{'scenario':60} │ takes │ fair % part %     from-to │ wait ms │ all done s"

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        if not quiet:
            print(self.LEGEND, "", self.HEAD, sep="\n", flush=True)

    def line(self, it: Result) -> Result:
        """Print one more; it is returned."""
        if not self._quiet:
            who = "share" if it.shares else "free"
            parts = f"{it.fair:6.0f} {it.part:6.0f} {f'{it.least:.0f}-{it.most:.0f}':>11}"
            print(f"{it.scenario:60} │ {who:5} │ {parts} │ {1000 * it.wait:7.0f} │ {it.done:10.2f}", flush=True)
        return it
