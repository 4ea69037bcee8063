"""An actor that adds numbers, fails and waits as it is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from queued_tasks.runtime.actor import (
    Actor,
    ActorRef,
    Coalesced,
    Exited,
    Reply,
    Restarts,
)

AT_ONCE = Restarts(first=0.0)


@dataclass(frozen=True, slots=True)
class Add:
    number: int


@dataclass(frozen=True, slots=True)
class Wake(Coalesced):
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    error: BaseException


@dataclass(frozen=True, slots=True)
class Total:
    reply: Reply[int]


@dataclass(frozen=True, slots=True)
class Hold:
    until: asyncio.Event


Message = Add | Wake | Fail | Total | Hold


class Adder(Actor[Message]):
    """Adds in private; what it saw and where it stands is in `journal`, which outlives it."""

    def __init__(self, journal: list[object]) -> None:
        self._journal = journal
        self._total = 0

    async def started(self) -> None:
        self._journal.append("started")

    async def stopped(self) -> None:
        self._journal.append("stopped")

    async def receive(self, message: Message) -> None:
        match message:
            case Add(number):
                self._total += number
            case Fail(error):
                raise error
            case Total(reply):
                reply.set(self._total)
            case Hold(until):
                await until.wait()
            case Wake():
                pass
        self._journal.append(message)


async def total(ref: ActorRef[Message]) -> int:
    return await ref.ask(Total, timeout=10)


def messages(journal: list[object]) -> list[object]:
    return [entry for entry in journal if isinstance(entry, Add | Wake)]


def ignore(_: Exited) -> None:
    """For tests that look elsewhere."""
