"""Runs in the environment of a peer; the answer is a line of JSON.

`python -m scripts.benchmarks.inside ADAPTER COMMAND [OPTION ...]`
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from .adapter import Adapter, Kind, Producer
from .recorder import recorder

Answer = dict[str, Any]  # JSON
IN_FLIGHT = 64
PACED_CLIENTS = 16


async def each(tasks: Iterable[int], limit: int, act: Callable[[int], Awaitable[object]]) -> None:
    """Act on all tasks, at most `limit` at a time."""
    left = iter(tasks)

    async def one() -> None:
        for task in left:
            await act(task)

    await asyncio.gather(*(one() for _ in range(limit)))


class Enqueuing:
    """The commands that add tasks."""

    def __init__(self, adapter: Adapter, asked: argparse.Namespace) -> None:
        self._producer: Producer = adapter.producer()
        self._dsn = os.environ["BENCH_DSN"]
        self._asked = asked
        self._kind: Kind = asked.kind

    async def enqueue(self) -> Answer:
        """One task a call, by `clients` at once."""
        clients, n = self._asked.clients, self._asked.n
        await self._producer.open(self._dsn, clients)
        warm = 4 * clients
        await each(range(warm), clients, self._one)
        began = time.perf_counter()
        await each(range(warm, warm + n), clients, self._one)
        took = time.perf_counter() - began
        await self._producer.close()
        return {"total": warm + n, "seconds": took, "rate": n / took}

    async def bulk(self) -> Answer:
        """All by the batch API."""
        await self._producer.open(self._dsn, 20)
        began = time.perf_counter()
        await self._producer.enqueue_many(range(self._asked.n), self._kind)
        took = time.perf_counter() - began
        await self._producer.close()
        return {"total": self._asked.n, "seconds": took, "rate": self._asked.n / took}

    async def calm(self) -> Answer:
        """One task every 50 ms; notes when the call began."""
        await self._producer.open(self._dsn, 1)
        for task in range(self._asked.n):
            began = time.monotonic()
            recorder("enqueue").start(task)
            await self._producer.enqueue(task, "noop")
            await asyncio.sleep(max(0.0, 0.05 - (time.monotonic() - began)))
        await self._producer.close()
        return {}

    async def paced(self) -> Answer:
        """An open loop at a fixed rate; notes when each call was due, so that a slow enqueue counts as latency."""
        await self._producer.open(self._dsn, PACED_CLIENTS)
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one(task: int) -> None:
            try:
                await self._producer.enqueue(task, "noop")
            finally:
                gate.release()

        began = time.monotonic() + 0.2
        async with asyncio.TaskGroup() as group:
            for task in range(self._asked.n):
                due = began + task / self._asked.rate
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                await gate.acquire()
                recorder("enqueue").start(task, due)
                group.create_task(one(task))
        took = time.monotonic() - began
        await self._producer.close()
        return {"rate": self._asked.n / took}

    async def _one(self, task: int) -> None:
        await self._producer.enqueue(task, self._kind)


def describe(adapter: Adapter) -> Answer:
    """What the adapter says of itself, and the versions."""
    names = ("DISTRIBUTION", "CONFIGURATION", "BULK", "PENDING", "DONE", "SUPERVISED")
    known = {name.lower(): getattr(adapter, name) for name in names}
    return {
        **known,
        "version": importlib.metadata.version(adapter.DISTRIBUTION),
        "python": f"Python {platform.python_version()}",
    }


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("adapter")
    parser.add_argument("command")
    parser.add_argument("--n", type=int, default=0)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--kind", default="noop")
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--concurrency", type=int, default=100)
    asked = parser.parse_args()
    adapter = cast("Adapter", importlib.import_module(f"{__package__}.peers.{asked.adapter}"))
    answer: Answer = {}
    match asked.command:
        case "describe":
            answer = describe(adapter)
        case "setup":
            run(adapter.setup(os.environ["BENCH_DSN"]))
        case "worker":
            run(adapter.worker(os.environ["BENCH_DSN"], asked.concurrency))
        case name:
            answer = run(getattr(Enqueuing(adapter, asked), name)())
    print("\nANSWER " + json.dumps(answer), flush=True)


def run(coroutine: Any) -> Any:
    """Run with uvloop, as every production set-up would."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


if __name__ == "__main__":
    main()
