"""What PostgreSQL itself does on this machine: with the same rows, written by pgbench without any Python, and from an
insert to a start by the plainest statements that could do."""

from __future__ import annotations

import subprocess
import sys

from ..arena import Arena, Case, Figures
from ..environments import OURS, ROOT, variables

_TASK = """
    insert into queued_tasks.task (id, timeout, executor, priority, max_retries, auto_remove, function, channel, args)
    select uuidv7(), 300, 0, 0, 3, false, 'scripts.benchmarks.bodies.noop', 'default', '[1]'
      from generate_series(1, {n}) returning id
"""
ENQUEUE = (
    "with made as ("
    + _TASK
    + """)
    insert into queued_tasks.bundle (lane, ids, attempt)
    select 1, array_agg(m.id), 1 from (select id, row_number() over () / 64 as part from made) m group by m.part;
"""
)
SETTLE = """
    insert into queued_tasks.result (id, state, attempt, server, started_at, ended_at, result)
    select uuidv7(), 'done', 1,
           '00000000-0000-0000-0000-000000000000', now(), now(), 'null' from generate_series(1, {n});
"""


def limits(arena: Arena) -> list[Case]:
    """Commits of one row, and rows in large commits."""
    return [Case("pgbench", lambda: _measure(arena))]


def _measure(arena: Arena) -> Figures:
    seconds = arena.sizes.limit_seconds

    def rate(script: str, n: int, clients: int) -> float:
        with arena.ours.trial(1) as trial:
            flat = " ".join(script.format(n=n).split())
            return n * arena.postgres.commits(flat, trial.database, clients=clients, seconds=seconds)

    return {
        "fdatasync_us": arena.postgres.sync_microseconds(),
        "enqueue_1": rate(ENQUEUE, 1, 1),
        "enqueue_16": rate(ENQUEUE, 1, 16),
        "enqueue_bulk": rate(ENQUEUE, 1000, 2),
        "settle_64": rate(SETTLE, 64, 2),
        "settle_1000": rate(SETTLE, 1000, 2),
        "start_ms": _bare_start(arena),
    }


def _bare_start(arena: Arena) -> float:
    with arena.ours.trial(1) as trial:
        command = [sys.executable, "-m", "scripts.benchmarks.bare_start", arena.postgres.dsn(trial.database)]
        done = subprocess.run(
            [*command, str(arena.sizes.calm)], env=variables(OURS), cwd=ROOT, capture_output=True, text=True, check=True
        )
    return float(done.stdout)
