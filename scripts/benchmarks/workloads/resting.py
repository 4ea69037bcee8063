"""What a server costs that has nothing to do."""

from __future__ import annotations

import time

from ..arena import Arena, Case, Figures
from ..contestant import cpu_by_part

BOOT = 16.0  # seconds for it to come to rest; PostgreSQL may take ten to count what its sessions did at first
MEGABYTE = 1_000_000
CONNECTIONS = "select count(*) from pg_stat_activity where datname = '{}'"
TRANSACTIONS = "select xact_commit + xact_rollback from pg_stat_database where datname = '{}'"


def idle(arena: Arena) -> list[Case]:
    """A server with two workers, and nothing queued."""
    return [Case("queued", lambda: _measure(arena))]


def _measure(arena: Arena) -> Figures:
    who, postgres, seconds = arena.ours, arena.postgres, arena.sizes.idle_seconds
    with who.trial(1) as trial, who.workers(trial, 2) as (supervisor,):
        time.sleep(BOOT)
        transactions = int(postgres.ask(TRANSACTIONS.format(trial.database)))
        cpu, database = cpu_by_part([supervisor]), postgres.cpu()
        time.sleep(seconds)
        after = cpu_by_part([supervisor])
        workers = [each.memory_info().rss / MEGABYTE for each in supervisor.children(recursive=True)]
        return {
            "cpu_percent": (sum(after.values()) - sum(cpu.values())) / seconds * 100,
            "cpu_database_percent": (postgres.cpu() - database) / seconds * 100,
            "transactions": (int(postgres.ask(TRANSACTIONS.format(trial.database))) - transactions) / seconds,
            "connections": int(postgres.ask(CONNECTIONS.format(trial.database))),
            "supervisor_mb": supervisor.memory_info().rss / MEGABYTE,
            "worker_mb": max(workers),
            "workers": len(workers),
        }
