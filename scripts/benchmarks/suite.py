"""Runs the workloads: round by round, so that every queue meets the same moments of the machine."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import psutil
import psycopg

from .arena import Arena, Case, Figures
from .environments import Failed
from .workloads import backlog, crowds, delays, enqueues, limits, naps, resting

WORKLOADS: dict[str, Callable[[Arena], list[Case]]] = {
    "limits": limits.limits,
    "idle": resting.idle,
    "drain": backlog.drains,
    "sync": backlog.sync_drains,
    "bulk": enqueues.bulk,
    "enqueue": enqueues.single,
    "fastapi": enqueues.web,
    "start": delays.calm,
    "paced": delays.paced,
    "naps": naps.naps,
    "deep": crowds.deep,
    "beside": crowds.beside,
    "bloat": backlog.bloat,
    "pinned": backlog.pinned_drains,
    "turns": crowds.turns,
}


@dataclass
class Results:
    """The figures of each round, by workload and case, and what could not be measured."""

    figures: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, workload: str, case: str, figures: Figures) -> None:
        """Keep the figures of a round."""
        self.figures.setdefault(workload, {}).setdefault(case, []).append(figures)

    def cases(self, workload: str) -> list[str]:
        """What was measured of a workload."""
        return list(self.figures.get(workload, {}))

    def median(self, workload: str, case: str, key: str = "rate") -> float | None:
        """The median of one figure over the rounds; None when it was not measured."""
        values = [value for value in self.all(workload, case, key) if isinstance(value, int | float)]
        return statistics.median(values) if values else None

    def all(self, workload: str, case: str, key: str = "rate") -> list[float | list[float]]:
        """One figure in all rounds."""
        return [figures[key] for figures in self.figures.get(workload, {}).get(case, []) if key in figures]

    def tenths(self, workload: str, case: str) -> list[float]:
        """The medians of the rates in each tenth."""
        rounds = [value for value in self.all(workload, case, "tenths") if isinstance(value, list) and value]
        return [statistics.median(tenth) for tenth in zip(*rounds, strict=True)]


def run(arena: Arena, names: Iterable[str], results: Results, keep: Callable[[], None]) -> None:
    """Measure the workloads one after the other; `keep` is called after each."""
    for name in names:
        began = time.monotonic()
        cases = WORKLOADS[name](arena)
        for turn in range(arena.sizes.rounds):
            for case in cases:
                if turn < (case.rounds or arena.sizes.rounds):
                    _measure(name, case, results)
        arena.forget()
        keep()
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _measure(workload: str, case: Case, results: Results) -> None:
    try:
        figures = case.measure()
    except (Failed, subprocess.SubprocessError, OSError, RuntimeError, psutil.Error, psycopg.Error) as error:
        results.failures.append(f"{workload}, {case.name}: {error}")
        print(f"  {workload:8} {case.name:14} FAILED: {error}", file=sys.stderr, flush=True)
        return
    results.add(workload, case.name, figures)
    shown = "  ".join(f"{key} {value:,.4g}" for key, value in figures.items() if not isinstance(value, list))
    print(f"  {workload:8} {case.name:14} {shown}", file=sys.stderr, flush=True)
