"""How soon a task could start on an idle server if a queue were an INSERT, a NOTIFY, a DELETE and a socket, no more.

`python -m scripts.benchmarks.bare_start DSN N` prints the median in milliseconds. As with this project one process adds
a task every 50 ms and notifies beside the commit, a second one listens and claims, and a third one starts the task.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from multiprocessing import get_context
from multiprocessing.sharedctypes import SynchronizedArray
from statistics import median
from typing import Any

import asyncpg
import uvloop

APART = 0.05  # seconds
TABLE = "create table if not exists bare_task (id integer)"
BESIDE = "select set_config('synchronous_commit', 'off', true), pg_notify('bare', $1)"


async def _add(dsn: str, n: int, added: list[float]) -> None:
    writer, announcer = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    await asyncio.sleep(1)
    for task in range(n):
        added.append(time.monotonic())
        await writer.execute("insert into bare_task values ($1)", task)
        await announcer.fetch(BESIDE, str(task))
        await asyncio.sleep(APART)


async def _serve(dsn: str, worker: socket.socket) -> None:
    listener, claimer = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    await claimer.execute("set synchronous_commit = off")
    heard = asyncio.Event()
    await listener.add_listener("bare", lambda *_: heard.set())
    while True:
        await heard.wait()
        heard.clear()
        for row in await claimer.fetch("delete from bare_task returning id"):
            await asyncio.get_running_loop().sock_sendall(worker, row["id"].to_bytes(4, "big"))


async def _work(sock: socket.socket, started: SynchronizedArray[float]) -> None:
    while task := await asyncio.get_running_loop().sock_recv(sock, 4):
        started[int.from_bytes(task, "big")] = time.monotonic()


def _run(act: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
    uvloop.run(act(*arguments))


def main() -> None:
    """Add so many tasks and look when they started."""
    dsn, n = sys.argv[1], int(sys.argv[2])
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    context = get_context("fork")
    started, added = context.Array("d", n), list[float]()

    async def prepare() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(TABLE)
        await connection.close()

    uvloop.run(prepare())
    others = [
        context.Process(target=_run, args=(_serve, dsn, ours), daemon=True),
        context.Process(target=_run, args=(_work, theirs, started), daemon=True),
    ]
    for process in others:
        process.start()
    _run(_add, dsn, n, added)
    for process in others:
        process.terminate()
        process.join()
    print(median((at - since) * 1000 for at, since in zip(started[:], added, strict=True) if at))


if __name__ == "__main__":
    main()
