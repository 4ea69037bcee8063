"""Worker processes to talk to: what runs in them, and this process' end of the talk."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ParamSpec

import msgspec
import uvloop

from queued_tasks.runtime.framing import Mailbox, frame
from queued_tasks.runtime.process import (
    AsyncEntry,
    BlockingEntry,
    WorkerProcess,
    messages_from_parent,
    open_parent_mailbox,
)

P = ParamSpec("P")

DECODER = msgspec.msgpack.Decoder()
LIMIT = 30.0  # seconds after which a test has failed


def on_uvloop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on the event loop that servers run on."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        uvloop.run(test(*args, **kwargs))

    return run


async def within_limit(awaitable: Awaitable[object]) -> None:
    async with asyncio.timeout(LIMIT):
        await awaitable


# What runs in the children. Each says "ready" first.


async def connected(sock: socket.socket, answer: Callable[[object], object]) -> Mailbox[object]:
    mailbox = await open_parent_mailbox(sock, DECODER, lambda message: mailbox.send(answer(message)))
    mailbox.send("ready")
    return mailbox


async def echo(sock: socket.socket, argument: object) -> None:
    await connected(sock, lambda message: argument if message == "argument" else message)
    await asyncio.Event().wait()


def echo_blocking(sock: socket.socket, argument: object) -> None:
    sock.sendall(frame("ready"))
    for message in messages_from_parent(sock, DECODER):
        sock.sendall(frame(argument if message == "argument" else message))


async def spin(sock: socket.socket, _: object) -> None:
    mailbox = await connected(sock, lambda message: message)
    await asyncio.sleep(0)
    while not mailbox.closed:
        pass


def interruptible(sock: socket.socket, _: object) -> None:
    def interrupt(*_: object) -> None:
        raise InterruptedError

    def read() -> None:
        for _message in messages_from_parent(sock, DECODER):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    signal.signal(signal.SIGALRM, interrupt)
    threading.Thread(target=read, daemon=True).start()
    try:
        sock.sendall(frame("ready"))
        time.sleep(3600)
    except InterruptedError:
        sock.sendall(frame("interrupted"))


async def leave(sock: socket.socket, code: int) -> None:
    mailbox = await connected(sock, lambda message: message)
    for number in range(5000):
        mailbox.send(number)
    await mailbox.close()
    if code:
        sys.exit(code)


def leave_a_grandchild(sock: socket.socket, _: object) -> None:
    sock.sendall(frame("ready"))
    if os.fork() == 0:
        sock.recv(1)
        os._exit(0)


async def fail(sock: socket.socket, _: object) -> None:
    raise ValueError("no")


async def report_signals_of_a_program(sock: socket.socket, _: object) -> None:
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout  # noqa: ASYNC221 - nothing else runs here
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn")))
    mailbox = await connected(sock, lambda message: message)
    mailbox.send({name: int(mask, 16) & 0x4002 for name, mask in masks.items()})  # SIGINT and SIGTERM
    await asyncio.Event().wait()


async def report_path(sock: socket.socket, _: object) -> None:
    mailbox = await connected(sock, lambda message: message)
    mailbox.send(sys.path)
    await asyncio.Event().wait()


# What runs in this process.


class Talk:
    """A worker and what came from it."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.worker = worker
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.errors: list[Exception | None] = []

    async def next(self) -> Any:
        async with asyncio.timeout(LIMIT):
            return await self.received.get()

    async def exit_code(self) -> int:
        async with asyncio.timeout(LIMIT):
            return await self.worker.exited


@asynccontextmanager
async def talk(entry: AsyncEntry[Any] | BlockingEntry[Any], argument: object = None) -> AsyncIterator[Talk]:
    """A worker that has said "ready"; killed at the end."""
    worker = WorkerProcess(entry, argument)
    talk = Talk(worker)
    await worker.spawn(DECODER, talk.received.put_nowait, talk.errors.append)
    try:
        assert await talk.next() == "ready"
        yield talk
    finally:
        worker.kill()
        await talk.exit_code()
