"""Drains of this queue amid many other tasks: a deep backlog, a million of other kinds; and of keys that take turns."""

from __future__ import annotations

import time
from functools import partial

from ..arena import Arena, Case, Figures
from ..contestant import Contestant, Filled
from ..environments import Failed
from ..recorder import Records
from .backlog import PATIENCE, WORKERS, drain, pinned

# Rows as add_tasks and settle write them: by its API a million would take minutes.
LANE = """
    insert into queued_tasks.lane (channel, priority, sync, again)
    values ('default', 0, false, false), ('paused', 0, false, false) on conflict do nothing
"""
TASKS = """
    insert into queued_tasks.task (id, timeout, executor, priority, max_retries, auto_remove, function, channel, args,
                                   run_at)
    select uuidv7(), 300, 0, 0, 3, false, 'scripts.benchmarks.bodies:noop', '{channel}', json_build_array(n.n), {run_at}
      from generate_series({low}, {high}) n (n) returning id, run_at
"""
READY = (
    """
    with made as ("""
    + TASKS
    + """)
    insert into queued_tasks.bundle (lane, ids, attempt)
    select (select l.id from queued_tasks.lane l where l.channel = '{channel}' and not l.sync and not l.again),
           array_agg(m.id order by m.id), 1
      from (select id, row_number() over (order by id) / 64 as part from made) m
     group by m.part order by m.part
"""
)
DELAYED = (
    "with made as (" + TASKS + ") insert into queued_tasks.delayed (run_at, id, attempt) select run_at, id, 1 from made"
)
FINISHED = (
    """
    with made as ("""
    + TASKS
    + """)
    insert into queued_tasks.result (id, state, attempt, server, started_at, result)
    select id, 'done', 1, uuidv7(), now(), 'null' from made
"""
)
TURNS = "select queued_tasks.set_gate('default', null, false, 1000, null, null, false, false)"
PAUSE = "select queued_tasks.set_gate('paused', null, false, null, null, null, true, false)"


def _crowd(n: int, form: str, *, channel: str = "default", run_at: str = "null", low: int = 0) -> tuple[str, ...]:
    return (LANE, form.format(low=low, high=low + n - 1, channel=channel, run_at=run_at))


def beside(arena: Arena) -> list[Case]:
    """Plain tasks, alone and beside a million that have nothing to do with them."""
    many, rest = arena.sizes.beside, arena.sizes.rest
    crowds = {
        "alone": (),
        "delayed": _crowd(many, DELAYED, run_at="now() + interval '1 day'"),
        "paused": (*_crowd(many, READY, channel="paused"), PAUSE),
        "finished": _crowd(many, FINISHED),
    }

    def measure(crowd: tuple[str, ...]) -> Figures:
        return drain(arena.ours, arena.ours.filled(rest, beside=crowd))

    return [Case(name, partial(measure, crowd)) for name, crowd in crowds.items()]


def turns(arena: Arena) -> list[Case]:
    """A channel with a limit per key, while an old transaction keeps vacuum from removing anything."""

    def measure() -> Figures:
        return pinned(arena.ours, arena.ours.filled(arena.sizes.pinned, beside=(TURNS,)))

    return [Case("turns", measure)]


def deep(arena: Arena) -> list[Case]:
    """The first tasks of a shallow and of a deep backlog."""
    shallow = arena.sizes.shallow
    more = arena.sizes.deep - shallow
    return [
        Case("shallow", lambda: _beginning(arena.ours, arena.ours.filled(shallow), shallow, shallow)),
        Case("deep", lambda: _beginning(arena.ours, _deep(arena.ours, shallow, more), shallow, shallow + more)),
    ]


def _deep(who: Contestant, shallow: int, more: int) -> Filled:
    return who.filled(shallow, beside=_crowd(more, READY, low=shallow))


def _beginning(who: Contestant, filled: Filled, n: int, slots: int) -> Figures:
    """The rate over the middle eight tenths of the first `n` starts, away from the workers' start and the end."""
    with who.trial(slots, filled) as trial:
        who.postgres.execute("checkpoint")
        records = Records(trial.records)
        began = time.monotonic()
        with who.workers(trial, WORKERS):
            while records.started() < n:
                if time.monotonic() - began > PATIENCE:
                    raise Failed(f"{who.name}: only {records.started()} of {n} tasks of a deep backlog started.")
                time.sleep(0.005)
        if records.runs().twice:
            raise Failed(f"{who.name}: tasks of a deep backlog ran twice.")
        line = records.timeline()[n // 10 : n - n // 10]
        return {"rate": (len(line) - 1) / (line[-1] - line[0]), "queued": slots}
