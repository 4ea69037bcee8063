"""A route that adds a task, writes a row or does nothing, served by uvicorn, and clients: 100 requests are in flight.

`python -m scripts.benchmarks.web queued|plain|empty REQUESTS` prints the requests per second; another process sends
them.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
import uvloop
from fastapi import FastAPI, Request

from queued_tasks import QueuedTasks
from queued_tasks.integrations.fastapi import Inject, lifespan

from .bodies import noop

IN_FLIGHT = 100
POOL = 10
WARM = 500


def queued() -> FastAPI:
    """The application whose route adds a task."""
    app = FastAPI(lifespan=lifespan)

    @app.post("/{task}")
    async def add(task: int, tasks: QueuedTasks = Inject(QueuedTasks)) -> dict[str, int]:  # noqa: B008  # as one writes it
        tasks.add_task(noop, task)
        return {"task": task}

    return app


def plain() -> FastAPI:
    """The application whose route writes a row by itself."""

    @asynccontextmanager
    async def pooled(app: FastAPI) -> AsyncIterator[None]:
        dsn = os.environ["QUEUE_DATABASE_URL"]
        async with asyncpg.create_pool(dsn, min_size=POOL, max_size=POOL) as app.state.pool:
            yield

    app = FastAPI(lifespan=pooled)

    @app.post("/{task}")
    async def add(task: int, request: Request) -> dict[str, int]:
        await request.app.state.pool.execute("insert into public.plain (task) values ($1)", json.dumps([task]))
        return {"task": task}

    return app


def empty() -> FastAPI:
    """The application whose route only answers: as fast as any can be."""
    app = FastAPI()

    @app.post("/{task}")
    async def add(task: int) -> dict[str, int]:
        return {"task": task}

    return app


class Clients:
    """Connections that send one request after the other."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def rate(self, n: int) -> float:
        """Requests per second over `n` of them."""
        left = iter(range(n))
        began = time.perf_counter()
        await asyncio.gather(*(self._one(left) for _ in range(IN_FLIGHT)))
        return n / (time.perf_counter() - began)

    async def _one(self, left: Iterator[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for task in left:  # all of them share it
            writer.write(f"POST /{task} HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        writer.close()


async def ask(port: int, n: int) -> None:
    """Be the clients, print the figures."""
    clients = Clients(port)
    await clients.rate(WARM)
    print(json.dumps({"rate": await clients.rate(n), "requests": WARM + n}))


def main() -> None:
    """Serve one of the routes to clients of a process of their own, or be these."""
    what, n = sys.argv[1], int(sys.argv[2])
    if what == "ask":
        uvloop.run(ask(int(sys.argv[3]), n))
        return
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        config = uvicorn.Config(
            {"queued": queued, "plain": plain, "empty": empty}[what](), log_level="warning", access_log=False
        )
        uvloop.run(_serve(uvicorn.Server(config), listener, n))


async def _serve(server: uvicorn.Server, listener: socket.socket, n: int) -> None:
    serving = asyncio.create_task(server.serve([listener]))
    command = (sys.executable, "-m", "scripts.benchmarks.web", "ask", str(n), str(listener.getsockname()[1]))
    clients = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said, _ = await clients.communicate()
    server.should_exit = True
    await serving
    if clients.returncode:
        raise SystemExit("The clients failed.")
    sys.stdout.write(said.decode())


if __name__ == "__main__":
    main()
