"""The queue as a worker process sees it: each verb is a Call to the supervisor, which has the connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from itertools import count
from typing import TypeVar
from uuid import UUID

import msgspec
from msgspec.structs import replace

from ..runtime import errors, wire
from ..runtime.backend import Backend, End
from ..runtime.current import Block, Running, Workplace
from ..runtime.errors import QueuedTasksError
from ..runtime.execute import added_of
from ..runtime.outbox import Outbox
from ..runtime.task import NewTask, Task, TaskLog, TaskState
from ..runtime.turn import TurnFlush
from ..runtime.watch import News
from .reporter import Reporter

T = TypeVar("T")

_WINNERS: msgspec.json.Decoder[dict[UUID, UUID]] = msgspec.json.Decoder(dict[UUID, UUID])
_TASK: msgspec.json.Decoder[Task | None] = msgspec.json.Decoder(Task | None)
_TASKS: msgspec.json.Decoder[list[Task]] = msgspec.json.Decoder(list[Task])
_LOGS: msgspec.json.Decoder[list[TaskLog]] = msgspec.json.Decoder(list[TaskLog])
_NUMBER = msgspec.json.Decoder(int)
_TRUTH = msgspec.json.Decoder(bool)
_NOTHING = msgspec.json.Decoder(None)
_ID = msgspec.json.Decoder(UUID)
_END = msgspec.json.Decoder(End)
_NEWS = msgspec.json.Decoder(News)
_SIGNATURES: msgspec.json.Decoder[list[bytes]] = msgspec.json.Decoder(list[bytes])  # base64


class WorkerBackend:
    """The verbs of `Backend`. `send` may be called on any thread; so may the verbs, each on whatever loop runs there.

    A Call's verb is the name of the method, its payload an object with the method's arguments (a task that is
    written travels in `added`), its answer the JSON of what the method returns.
    """

    def __init__(self, send: Callable[[wire.Call], None], *, signs: bool = False) -> None:
        self.signs = signs
        self._send = send
        self._numbers = count(1)
        self._open: dict[int, Future[str | None]] = {}

    def answered(self, answer: wire.Answer) -> None:
        """Give an answer of the supervisor to whoever waits for it, if anybody still does."""
        asked = self._open.pop(answer.call, None)
        if asked is None or not asked.set_running_or_notify_cancel():
            return
        if answer.error is None:
            asked.set_result(answer.value)
        else:
            asked.set_exception(_error(answer.error, answer.text or ""))

    def ask(self, send: Callable[[int], None]) -> Future[str | None]:
        """Let `send` send something that is answered under the number that it is given; the answer to come."""
        asked: Future[str | None] = Future()
        number = next(self._numbers)
        self._open[number] = asked
        asked.add_done_callback(lambda _: self._open.pop(number, None))
        try:
            send(number)
        except BaseException:
            asked.cancel()
            raise
        return asked

    async def write(self, tasks: Sequence[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:
        return await self._call(_WINNERS, "write", {"repeat": repeat}, added=[added_of(task) for task in tasks])

    def draft(self, patience: float) -> None:
        """The supervisor writes, which gets all tasks at once."""

    async def get(self, id: UUID) -> Task | None:
        return await self._call(_TASK, "get", {"id": id})

    async def page(
        self, *, state: TaskState | None, name: str | None, channel: str | None, before: UUID | None, limit: int
    ) -> list[Task]:
        asked = {"state": state, "name": name, "channel": channel, "before": before, "limit": limit}
        return await self._call(_TASKS, "page", asked)

    async def logs(self, id: UUID, *, after: int | None, limit: int) -> list[TaskLog]:
        return await self._call(_LOGS, "logs", {"id": id, "after": after, "limit": limit})

    async def pending(self) -> int:
        return await self._call(_NUMBER, "pending", {})

    async def cancel(self, id: UUID) -> bool:
        return await self._call(_TRUTH, "cancel", {"id": id})

    async def stop(self, id: UUID) -> bool:
        return await self._call(_TRUTH, "stop", {"id": id})

    async def retry(self, id: UUID, *, subtree: bool = False) -> UUID:
        return await self._call(_ID, "retry", {"id": id, "subtree": subtree})

    async def wait(self, id: UUID, timeout: float | None) -> End:
        return await self._call(_END, "wait", {"id": id, "timeout": timeout})

    async def was_written(self, id: UUID) -> bool:
        return await self._call(_TRUTH, "was_written", {"id": id})

    async def note(self, id: UUID, message: str, exception: str) -> None:
        await self._call(_NOTHING, "note", {"id": id, "message": message, "exception": exception})

    async def expect(self, ids: Sequence[UUID]) -> None:
        await self._call(_NOTHING, "expect", {"ids": ids})

    async def signed(self, tasks: Sequence[NewTask]) -> list[NewTask]:
        signatures = await self._call(_SIGNATURES, "signed", {}, added=[added_of(task) for task in tasks])
        return [replace(task, signature=signature) for task, signature in zip(tasks, signatures, strict=True)]

    async def news(self, id: UUID, progress: str, line: int) -> News:
        return await self._call(_NEWS, "news", {"id": id, "progress": progress, "line": line})

    async def _call(
        self,
        decoder: msgspec.json.Decoder[T],
        verb: str,
        arguments: Mapping[str, object],
        added: list[wire.Added] | None = None,
    ) -> T:
        payload = msgspec.json.encode(arguments).decode()
        answer = await asyncio.wrap_future(self.ask(lambda number: self._send(wire.Call(number, verb, payload, added))))
        return decoder.decode(answer or "null")


def workplace(reporter: Reporter, backend: WorkerBackend, block: Block | None = None) -> Workplace:
    """What the attempts of a worker share. `block`: how threads of it wait, None as long as nobody can say."""

    def commit_context(running: Running) -> Future[str | None]:
        return backend.ask(lambda call: reporter.commit(running, call))

    return Workplace(reporter.context_changed, backend, commit_context, block)


@asynccontextmanager
async def queue_outside_tasks(backend: Backend) -> AsyncIterator[None]:
    """Let what runs in this process outside of tasks, as a lifespan does, have the queue for the time of the block."""
    # A worker that never needs them is several megabytes smaller.
    from ..runtime import handles
    from ..runtime.settings import Settings

    outbox = Outbox(backend, together=False)
    flush = TurnFlush(outbox)
    handles.worker_handle = handles.QueuedTasks(backend, outbox, Settings())
    try:
        yield
    finally:
        handles.worker_handle = None
        await flush.close("This worker process leaves: add tasks before its lifespan is over.")


def _error(name: str, text: str) -> Exception:
    if name == "TimeoutError":
        return TimeoutError(text)
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, QueuedTasksError) and kind.__init__ is QueuedTasksError.__init__:
        return kind(text)
    return QueuedTasksError(f"{name}: {text}")
