"""Do for workers what needs a connection: they have none. See worker_backend.py for the other side."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import assert_never
from uuid import UUID

import msgspec
from loguru import logger

from ..runtime import wire
from ..runtime.actor import Actor
from ..runtime.backend import Backend
from ..runtime.direct import DirectBackend
from ..runtime.errors import QueuedTasksError, TaskNotFound
from ..runtime.framing import FrameTooLarge
from ..runtime.task import NewTask, TaskState
from .messages import Asked, AskerGone, DeskMessage


class Desk(Actor[DeskMessage]):
    """Answers each call when its answer is there, in any order: a wait may take hours."""

    def __init__(self, backend: DirectBackend) -> None:
        self._backend = backend
        self._calls: dict[asyncio.Task[None], int] = {}  # with the worker that asked

    async def stopped(self) -> None:
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        await self._backend.leave()

    async def receive(self, message: DeskMessage) -> None:
        match message:
            case Asked():
                call = asyncio.get_running_loop().create_task(self._answer(message))
                self._calls[call] = message.worker
                call.add_done_callback(self._calls.pop)
            case AskerGone(worker):
                for call in [call for call, asker in self._calls.items() if asker == worker]:
                    call.cancel()
            case _:
                assert_never(message)

    async def _answer(self, asked: Asked) -> None:
        call = asked.call
        try:
            added = [wire.unpack(task) for task in call.added or ()]
            arguments = msgspec.json.decode(call.payload, type=_Arguments)
            value = await _carry_out(self._backend, call.verb, arguments, added)
            answer = wire.Answer(call.call, value=msgspec.json.encode(value).decode())
        except (QueuedTasksError, TimeoutError) as error:
            answer = wire.Answer(call.call, error=type(error).__name__, text=str(error))
        except Exception as error:  # whoever asked must not wait for ever
            logger.opt(exception=error).error("the call {} of worker {} failed", call.verb, asked.worker)
            answer = wire.Answer(call.call, error=type(error).__name__, text=str(error))
        try:
            asked.answer(answer)
        except FrameTooLarge as error:
            text = (
                f"What was asked for ({call.verb}) can't be sent to a worker, {error}. "
                "Ask for less at once, with a smaller limit."
            )
            asked.answer(wire.Answer(call.call, error=QueuedTasksError.__name__, text=text))


class _Arguments(msgspec.Struct):
    """The arguments of all verbs; each uses its own."""

    id: UUID | None = None
    ids: list[UUID] = []
    repeat: bool = False
    state: TaskState | None = None
    name: str | None = None
    channel: str | None = None
    before: UUID | None = None
    after: int | None = None
    limit: int = 50
    timeout: float | None = None
    subtree: bool = False
    progress: str = ""
    line: int = 0
    message: str = ""
    exception: str = ""

    @property
    def task(self) -> UUID:
        """The id, for verbs that are about one task."""
        if self.id is None:
            raise TaskNotFound("No task was named: pass the id of one.")
        return self.id


async def _carry_out(backend: Backend, verb: str, asked: _Arguments, added: list[NewTask]) -> object:
    match verb:
        case "write":
            return {str(loser): winner for loser, winner in (await backend.write(added, repeat=asked.repeat)).items()}
        case "get":
            return await backend.get(asked.task)
        case "page":
            return await backend.page(
                state=asked.state, name=asked.name, channel=asked.channel, before=asked.before, limit=asked.limit
            )
        case "logs":
            return await backend.logs(asked.task, after=asked.after, limit=asked.limit)
        case "pending":
            return await backend.pending()
        case "cancel":
            return await backend.cancel(asked.task)
        case "stop":
            return await backend.stop(asked.task)
        case "retry":
            return await backend.retry(asked.task, subtree=asked.subtree)
        case "wait":
            return await backend.wait(asked.task, asked.timeout)
        case "was_written":
            return await backend.was_written(asked.task)
        case "note":
            await backend.note(asked.task, asked.message, asked.exception)
            return None
        case "expect":
            await backend.expect(asked.ids)
            return None
        case "signed":
            return [b64encode(task.signature or b"").decode() for task in await backend.signed(added)]
        case "news":
            return await backend.news(asked.task, asked.progress, asked.line)
        case _:
            raise QueuedTasksError(f"The server does not know the call {verb!r}: run one version on this host.")
