"""The same tasks for servers that leave their peers a part of what is new, and for servers that take what they can."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..benchmarks.postgres import Postgres
from .cluster import cluster


@dataclass(frozen=True)
class Host:
    """A server; the speed is that of the host."""

    slots: int = 10
    speed: float = 1.0


@dataclass(frozen=True)
class Scenario:
    """So many tasks, added at once, of so many seconds for these hosts. `fair`: the part of the first one, in %."""

    name: str
    tasks: int
    seconds: float
    hosts: tuple[Host, ...] = (Host(), Host())

    @property
    def fair(self) -> float:
        """The part of the first host by slots and speed, in %."""
        rooms = [host.slots * host.speed for host in self.hosts]
        return 100 * rooms[0] / sum(rooms)


SCENARIOS = (
    Scenario("10 tasks of 2 s", 10, 2.0),
    Scenario("15 tasks, the first server has twice the slots", 15, 2.0, (Host(20), Host(10))),
    Scenario("10 tasks of 1 s, the first server is three times as slow", 10, 1.0, (Host(speed=1 / 3), Host())),
    Scenario("a backlog of 400 tasks of 0.1 s", 400, 0.1),
    Scenario("a burst of 1,000 tasks of 5 ms", 1_000, 0.005),
    Scenario("10 tasks of 0.1 s, one server alone", 10, 0.1, (Host(),)),
)


@dataclass(frozen=True)
class Result:
    """Of one scenario one way: medians of the rounds. Parts of the first server in %, times in seconds."""

    scenario: str
    shares: bool
    rounds: int
    fair: float
    part: float
    least: float
    most: float
    wait: float
    done: float


async def compare(postgres: Postgres, rounds: int) -> AsyncIterator[Result]:
    """Each scenario, both ways."""
    for scenario in SCENARIOS:
        for shares in (False, True):
            yield await _result(postgres, scenario, shares, rounds)


async def _result(postgres: Postgres, scenario: Scenario, shares: bool, rounds: int) -> Result:
    parts: list[float] = []
    waits: list[float] = []
    spans: list[float] = []
    async with cluster(postgres, "comparison") as servers:
        for host in scenario.hosts:
            await servers.start(slots=host.slots, speed=host.speed, shares=shares)
        for _ in range(rounds):
            await servers.grow(len(scenario.hosts))
            servers.runs.clear()
            began = time.monotonic()
            await servers.add(scenario.tasks, scenario.seconds)
            await servers.ended(scenario.tasks)
            taken = Counter(run.server for run in servers.runs)
            parts.append(100 * taken[servers.servers[0].name] / scenario.tasks)
            waits.append(statistics.median(run.started - run.added for run in servers.runs))
            spans.append(max(run.ended for run in servers.runs) - began)
    return Result(
        scenario.name,
        shares,
        rounds,
        scenario.fair,
        statistics.median(parts),
        min(parts),
        max(parts),
        statistics.median(waits),
        statistics.median(spans),
    )
