"""Store the contexts and log lines of running attempts.

What is left of them when an attempt ends is written by the settler, in the transaction that records the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import assert_never
from uuid import UUID

from loguru import logger

from ..runtime import wire
from ..runtime.actor import Actor
from ..runtime.errors import DatabaseUnavailable, QueuedTasksError
from ..runtime.outbox import PATIENCE
from ..runtime.store.link import NoRoom
from ..runtime.store.tasks import TaskStore
from ..runtime.task import ContextWrite, LogWrite, ServerId
from .messages import Commit, Go, RecorderMessage, Writes
from .vitals import Vitals

AGAIN = 0.5  # seconds between two tries to store what somebody waits for


class Recorder(Actor[RecorderMessage]):
    """What can't be written is dropped: the next context replaces the last one, lost lines are counted and said. When
    PostgreSQL refuses some of it, only that is.

    A context that somebody waits for is kept and tried again, for as long as one has patience with any write. Those
    that come while a write is under way go into the next one.
    """

    def __init__(self, store: TaskStore, server: ServerId, vitals: Vitals) -> None:
        self._store = store
        self._server = server
        self._vitals = vitals
        self._dropped = 0
        self._commits: list[tuple[float, Commit]] = []  # with when each of them came

    async def receive(self, message: RecorderMessage) -> None:
        match message:
            case Writes():
                self._dropped += message.lost
                try:
                    await self._write(message)
                finally:
                    message.done = True
            case Commit():
                self._commits.append((time.monotonic(), message))
                self.ref.tell(Go())
            case Go():
                commits, self._commits = self._commits, []
                if commits:
                    await self._commit(commits)
            case _:
                assert_never(message)

    async def stopped(self) -> None:
        for _, commit in self._commits:  # no later instance knows of them
            text = f"The context of task {commit.write.claimed.id} was not stored: its server gave up. Try it again."
            commit.answer(wire.Answer(commit.call, error=DatabaseUnavailable.__name__, text=text))

    async def _write(self, writes: Writes) -> None:
        # The attempt may run again under its number, and on this server: only the lease tells the two apart.
        logs = [line for line in writes.logs if line.claimed.lease not in self._vitals.gone]
        try:
            try:
                await self._store.record(self._server, writes.contexts, logs)
            except NoRoom:
                self._dropped += len(logs)
                logs = []
                await self._store.record(self._server, writes.contexts, [])
        except DatabaseUnavailable:
            self._dropped += len(logs)
            return
        except QueuedTasksError:
            raise
        except Exception as error:  # what the database says of a row that it doesn't take
            await self._write_apart(_divided(writes.contexts, logs), error)
            return
        if logs and self._dropped:
            logger.warning("{} log lines of tasks were lost while PostgreSQL was away or had no room", self._dropped)
            self._dropped = 0

    async def _write_apart(self, parts: list[Writes], error: Exception) -> None:
        if len(parts) > 1:
            for part in parts:
                await self._write(part)
            return
        for part in parts:
            for write in part.contexts:
                logger.warning("PostgreSQL refused a context of task {}, which is lost: {}", write.claimed.id, error)
            for line in part.logs[:1]:
                lines, of = len(part.logs), line.claimed.id
                logger.warning("PostgreSQL refused {} log lines of task {}, which are lost: {}", lines, of, error)

    async def _commit(self, commits: list[tuple[float, Commit]]) -> None:
        try:
            ours = await self._store.record(self._server, [commit.write for _, commit in commits], [])
        except DatabaseUnavailable as error:
            self._keep(commits, error)
        except QueuedTasksError as error:
            for _, commit in commits:
                commit.answer(wire.Answer(commit.call, error=type(error).__name__, text=str(error)))
        except Exception as error:  # what the database says of a row that it doesn't take
            if len(commits) == 1:
                commits[0][1].answer(_refused(commits[0][1], error))
                return
            for each in commits:
                await self._commit([each])
        else:
            for _, commit in commits:
                commit.answer(wire.Answer(commit.call) if commit.write.claimed.id in ours else _lost(commit))

    def _keep(self, commits: list[tuple[float, Commit]], error: DatabaseUnavailable) -> None:
        now = time.monotonic()
        for since, commit in commits:
            if now - since > PATIENCE:
                commit.answer(wire.Answer(commit.call, error=DatabaseUnavailable.__name__, text=str(error)))
            else:
                self._commits.append((since, commit))
        asyncio.get_running_loop().call_later(AGAIN, self.ref.tell, Go())


def _lost(commit: Commit) -> wire.Answer:
    text = f"Task {commit.write.claimed.id} is not run by this attempt any more: another one may have taken its place."
    return wire.Answer(commit.call, error="InvalidState", text=text)


def _refused(commit: Commit, error: Exception) -> wire.Answer:
    text = f"PostgreSQL refused the context of task {commit.write.claimed.id}: {error}. Keep something else in it."
    return wire.Answer(commit.call, error="SerializationError", text=text)


def _divided(contexts: Sequence[ContextWrite], logs: Sequence[LogWrite]) -> list[Writes]:
    """Each context by itself, and the lines of each task by themselves."""
    lines: dict[UUID, list[LogWrite]] = {}
    for line in logs:
        lines.setdefault(line.claimed.id, []).append(line)
    return [*(Writes([write], []) for write in contexts), *(Writes([], own) for own in lines.values())]
