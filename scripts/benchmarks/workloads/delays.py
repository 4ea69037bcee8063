"""How long a task waits between its enqueue and its start, on idle workers and at a thousand tasks a second."""

from __future__ import annotations

import time
from functools import partial

from ..arena import Arena, Case, Figures
from ..contestant import Contestant, Trial
from ..environments import OURS, PEERS, Failed
from ..recorder import Records

BOOT = 4.0  # seconds for the workers to come to rest
WARM = 10  # tasks whose delay does not count


def calm(arena: Arena) -> list[Case]:
    """One idle worker, an enqueue every 50 ms."""
    return _cases(arena, "calm", arena.sizes.calm, 1)


def paced(arena: Arena) -> list[Case]:
    """Two workers, a thousand enqueues a second whatever happens; a delay counts from when the call was due."""
    return _cases(arena, "paced", arena.sizes.paced, 2)


def _cases(arena: Arena, command: str, n: int, workers: int) -> list[Case]:
    names = [OURS, *(name for name in arena.peers if PEERS[name].lively)]
    return [Case(name, partial(_measure, arena, name, command, n, workers)) for name in names]


def _measure(arena: Arena, name: str, command: str, n: int, workers: int) -> Figures:
    who = arena.contestant(name)
    with who.trial(n) as trial, who.workers(trial, workers):
        time.sleep(BOOT)
        who.call(trial, command, "--n", n)
        records = Records(trial.records)
        _wait_for_all(who, records, n)
        return _delays(trial, records)


def _wait_for_all(who: Contestant, records: Records, n: int) -> None:
    deadline = time.monotonic() + 20
    while records.started() < n:
        if time.monotonic() > deadline:
            raise Failed(f"{who.name}: only {records.started()} of {n} tasks started.")
        time.sleep(0.05)


def _delays(trial: Trial, records: Records) -> Figures:
    """In milliseconds."""
    called = Records(trial.records, "enqueue")
    called.started()
    began, ran = called.by_task(), records.by_task()
    delays = sorted((ran[task] - at) * 1000 for task, at in began.items() if task >= WARM)
    return {"p50": _quantile(delays, 0.5), "p99": _quantile(delays, 0.99), "worst": delays[-1]}


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
