"""Drains: tasks are there first, then two worker processes run them all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from ..arena import Arena, Case, Figures
from ..contestant import Contestant, Filled, Trial, cpu_by_part
from ..environments import OURS, PEERS, Failed
from ..recorder import Records

WORKERS = 2
PATIENCE = 120.0
DEAD = """
    select coalesce(sum((pgstattuple(c.oid)).dead_tuple_count), 0)::bigint
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema')
"""


def drain(who: Contestant, filled: Filled, *, concurrency: int = 100, counted: bool = False) -> Figures:
    """Drain a copy of a filled template: from the first start until everything is durably done."""
    with who.trial(filled.n + filled.done, filled) as trial:
        return drained(who, trial, filled, concurrency=concurrency, counted=counted)


def drained(who: Contestant, trial: Trial, filled: Filled, *, concurrency: int = 100, counted: bool = False) -> Figures:
    """Drain a trial; `counted` counts its dead tuples, too."""
    records, postgres = Records(trial.records), who.postgres
    postgres.execute("checkpoint")
    wal = postgres.wal()
    with who.workers(trial, WORKERS, concurrency) as started:
        _wait_for_first(who, trial, records)
        database, parts = postgres.cpu(), cpu_by_part(started)
        end = who.drain(trial, records, filled.n, PATIENCE)
        database, after = postgres.cpu() - database, cpu_by_part(started)
        dead = _dead(who, trial) if counted else None
    who.verify(trial, records, filled.n, filled.done)
    took = end - records.first()
    figures: Figures = {
        "n": filled.n,
        "rate": filled.n / took,
        "seconds": took,
        "wal_enqueue": filled.wal / filled.n,
        "wal_run": (postgres.wal() - wal) / filled.n,
        "cpu_database_us": database / filled.n * 1e6,
        "cpu_started_us": (after["started"] - parts["started"]) / filled.n * 1e6,
        "cpu_children_us": (after["children"] - parts["children"]) / filled.n * 1e6,
        "tenths": _tenths(records),
    }
    return figures if dead is None else {**figures, "dead": dead}


def drains(arena: Arena) -> list[Case]:
    """No-op async tasks, 100 slots a worker."""
    return [Case(name, partial(_own_share, arena, name, arena.sizes.drain, "noop")) for name in _all(arena)]


def sync_drains(arena: Arena) -> list[Case]:
    """No-op functions that are not async, for the queues that run such."""
    names = [name for name in _all(arena) if PEERS[name].sync]
    return [Case(name, partial(_own_share, arena, name, arena.sizes.sync, "noop_sync")) for name in names]


def pinned_drains(arena: Arena) -> list[Case]:
    """A drain while somebody's old transaction keeps vacuum from removing anything; a third of it for who decays."""
    return [
        Case(name, partial(_pinned, arena, name, arena.sizes.pinned // (1 if name == OURS else 3)), rounds)
        for name, rounds in _with_pgqueuer(arena)
    ]


def bloat(arena: Arena) -> list[Case]:
    """The dead tuples that a drain leaves, autovacuum at work."""

    def measure(name: str) -> Figures:
        who = arena.contestant(name)
        return drain(who, who.filled(arena.sizes.pinned), counted=True)

    return [Case(name, partial(measure, name), rounds) for name, rounds in _with_pgqueuer(arena)]


def _own_share(arena: Arena, name: str, n: int, kind: str) -> Figures:
    who = arena.contestant(name)
    return drain(who, who.filled(arena.share(name, n), kind))


def _all(arena: Arena) -> list[str]:
    return [OURS, *arena.peers]


def _with_pgqueuer(arena: Arena) -> Iterator[tuple[str, int | None]]:
    yield OURS, None
    if "pgqueuer" in arena.peers:
        yield "pgqueuer", 1


def pinned(who: Contestant, filled: Filled) -> Figures:
    """Drain a copy of a filled template while a transaction is left open."""
    with who.trial(filled.n, filled) as trial, _transaction_held(who, trial):
        return drained(who, trial, filled, counted=True)


def _pinned(arena: Arena, name: str, n: int) -> Figures:
    who = arena.contestant(name)
    return pinned(who, who.filled(n))


@contextmanager
def _transaction_held(who: Contestant, trial: Trial) -> Iterator[None]:
    with who.postgres.connect(trial.database) as connection:
        connection.execute("begin isolation level repeatable read")
        connection.execute("select txid_current()")
        yield
        connection.execute("rollback")


def _wait_for_first(who: Contestant, trial: Trial, records: Records) -> None:
    deadline = time.monotonic() + 60
    while not records.started():
        if time.monotonic() > deadline:
            said = (trial.records / "log").read_text(errors="replace")[-600:]
            raise Failed(f"{who.name} starts nothing. {said}")
        time.sleep(0.005)


def _tenths(records: Records) -> list[float]:
    """The rate of starts in each tenth of the tasks, once all processes are at work."""
    last = records.starts()[-1]
    line = [at for at in records.timeline() if at >= last]
    size = len(line) // 10
    if size < 2:
        return []
    parts = [line[tenth * size : (tenth + 1) * size] for tenth in range(10)]
    return [(len(part) - 1) / max(1e-9, part[-1] - part[0]) for part in parts]


def _dead(who: Contestant, trial: Trial) -> int:
    who.postgres.execute("create extension if not exists pgstattuple", trial.database)
    return int(who.postgres.ask(DEAD, trial.database))
