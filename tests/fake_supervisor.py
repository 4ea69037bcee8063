"""A supervisor for tests of one worker process: sends what a test wants, keeps what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from ctypes import c_uint64
from itertools import count
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

from queued_tasks.actors import sync_worker_main, worker_main
from queued_tasks.runtime import wire
from queued_tasks.runtime.process import WorkerProcess
from queued_tasks.runtime.stacks import Account
from tests.waiting import wait_until

T = TypeVar("T")

LIMIT = 30.0  # seconds after which a test has failed
TASKS = "tests.tasks_for_workers"


class FakeSupervisor:
    """One worker process and all frames that came from it, in their order. Whatever it commits counts as stored."""

    def __init__(self, argument: wire.WorkerArgument) -> None:
        entry: Any = worker_main.main if argument.kind == "async" else sync_worker_main.main
        self.frames: list[wire.FromWorker] = []
        self.argument = argument
        self.process = WorkerProcess(entry, argument)
        self._came = asyncio.Event()
        self._numbers = count(1)

    async def start(self) -> None:
        await self.process.spawn(msgspec.msgpack.Decoder(wire.FromWorker), self._receive, lambda _: self._came.set())

    async def activate(self) -> wire.Active:
        self.process.send(wire.Activate())
        return await self.first(wire.Active)

    def run(self, function: str, *args: object, **options: Any) -> int:
        """Send one attempt at `function` of the module of task functions; its number."""
        attempt = self.attempt(function, *args, **options)
        self.process.send(wire.Run([attempt]))
        return attempt.no

    def attempt(self, function: str, *args: object, **options: Any) -> wire.Attempt:
        fields: dict[str, Any] = {
            "no": next(self._numbers),
            "id": uuid4().bytes,
            "attempt": 1,
            "name": function,
            "function": function if ":" in function else f"{TASKS}:{function}",
            "executor": 0,
            "args": msgspec.json.encode(args).decode(),
            "kwargs": None,
            "context": None,
            "timeout": 300.0,
            "failures": 0,
            "timeouts": 0,
            "max_retries": 3,
        }
        return wire.Attempt(**{**fields, **options})

    async def end_of(self, no: int) -> wire.End:
        return await self.until(lambda: next((end for end in self.ends if end.no == no), None))

    async def result_of(self, function: str, *args: object, **options: Any) -> wire.End:
        return await self.end_of(self.run(function, *args, **options))

    async def first(self, kind: type[T]) -> T:
        return await self.until(lambda: next(iter(self.all(kind)), None))

    async def until(self, look: Callable[[], T | None]) -> T:
        """What `look` finds among the frames, once it does."""
        async with asyncio.timeout(LIMIT):
            while (found := look()) is None:
                assert not self.process.exited.done(), f"the worker is gone: {self.frames}"
                self._came.clear()
                await self._came.wait()
        return found

    async def said(self, message: str) -> int:
        """Wait for a log line of a task; the number of its attempt."""
        return await self.until(lambda: next((line.no for line in self.lines if line.message == message), None))

    async def account(self, *, told: bool = True) -> Account:
        """What the process says once its main thread is in a function of the module; `told`: by Python, too."""

        def is_there() -> bool:
            account = self.process.account()
            return account is not None and "tasks_for_workers.py" in account.place and account.told >= told

        async def asked() -> bool:
            self.process.ask()
            with suppress(AssertionError):
                await wait_until(is_there, deadline=1)
            return is_there()

        await wait_until(asked)
        account = self.process.account()
        assert account is not None
        return account

    async def exit_code(self) -> int:
        async with asyncio.timeout(LIMIT):
            return await asyncio.shield(self.process.exited)

    def hang_up(self) -> None:
        """End the connection, as the death of a supervisor does."""
        self.process._mailbox.abort()

    def all(self, kind: type[T]) -> list[T]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    @property
    def ends(self) -> list[wire.End]:
        return [end for frame in self.all(wire.Ended) for end in frame.ends]

    @property
    def lines(self) -> list[wire.LogLine]:
        return [line for frame in self.all(wire.Logged) for line in frame.lines]

    def _receive(self, frame: wire.FromWorker) -> None:
        self.frames.append(frame)
        self._came.set()
        if isinstance(frame, wire.Commit):
            self.process.send(wire.Answer(frame.call))


def argument(kind: str = "async", **changes: Any) -> wire.WorkerArgument:
    """What a worker for the task functions of the tests is started with."""
    standard: dict[str, Any] = {
        "kind": kind,
        "slots": 10 if kind == "async" else 1,
        "app": None,
        "app_dir": str(Path(__file__).parent.parent),
        "lifespan": False,
        "allowed_modules": (),
        "only_decorated": False,
        "schema": "queued_tasks",
        "begun": RawValue(c_uint64) if kind == "sync" else None,
    }
    return wire.WorkerArgument(**{**standard, **changes})


@asynccontextmanager
async def worker(kind: str = "async", *, active: bool = True, **changes: Any) -> AsyncIterator[FakeSupervisor]:
    """A worker process, active unless told otherwise; killed at the end of the block."""
    supervisor = FakeSupervisor(argument(kind, **changes))
    await supervisor.start()
    try:
        if active:
            await supervisor.activate()
        yield supervisor
    finally:
        supervisor.process.kill()
        await supervisor.exit_code()
