"""Enqueues: one by one from many clients, in bulk, and through a web application."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

from ..arena import Arena, Case, Figures
from ..environments import OURS, ROOT, Failed, variables

CLIENTS = 16


def single(arena: Arena) -> list[Case]:
    """A call a task, awaited until it is durable, by 16 clients in one process."""

    def measure(name: str) -> Figures:
        who, n = arena.contestant(name), arena.sizes.single * (4 if name == OURS else 1)
        with who.trial(n + 4 * CLIENTS) as trial:
            arena.postgres.execute("checkpoint")
            answer = who.call(trial, "enqueue", "--n", n, "--clients", CLIENTS)
            _count(arena, name, trial.database, answer["total"])
        return {"rate": answer["rate"]}

    return [Case(name, partial(measure, name)) for name in (OURS, *arena.peers)]


def bulk(arena: Arena) -> list[Case]:
    """The batch API of each."""

    def measure(name: str) -> Figures:
        who, n = arena.contestant(name), arena.share(name, arena.sizes.bulk)
        with who.trial(n) as trial:
            arena.postgres.execute("checkpoint")
            answer = who.call(trial, "bulk", "--n", n)
            _count(arena, name, trial.database, n)
        return {"rate": answer["rate"]}

    return [Case(name, partial(measure, name)) for name in (OURS, *arena.peers) if name != "pgqueuer_fast"]


def web(arena: Arena) -> list[Case]:
    """A FastAPI route that adds a task, that does one INSERT through asyncpg, or nothing; 100 requests in flight."""

    def measure(route: str) -> Figures:
        n = arena.sizes.requests
        with arena.ours.trial(1) as trial:
            arena.postgres.execute("create table public.plain (task json)", trial.database)
            arena.postgres.execute("checkpoint")
            command = [sys.executable, "-m", "scripts.benchmarks.web", route, str(n)]
            environment = variables(OURS) | {"QUEUE_DATABASE_URL": arena.postgres.dsn(trial.database)}
            done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Failed(f"FastAPI, {route}: {done.stderr[-1500:]}")
            figures: Figures = json.loads(done.stdout)
            query = "select (select count(*) from public.plain) + (select count(*) from queued_tasks.task)"
            written = arena.postgres.ask(query, trial.database)
            if written != (0 if route == "empty" else figures["requests"]):
                raise Failed(f"FastAPI, {route}: {written} rows for {figures['requests']} requests.")
        return figures

    return [Case(route, partial(measure, route)) for route in ("queued", "plain", "empty")]


def _count(arena: Arena, name: str, database: str, n: int) -> None:
    """Make sure that nothing of ours is missing."""
    if name == OURS and (written := arena.postgres.ask("select count(*) from queued_tasks.task", database)) != n:
        raise Failed(f"{name}: {written} of {n} tasks were written.")
