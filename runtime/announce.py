"""Say what happened to those who wait for it: servers for due tasks and wishes, whoever awaits a task for its end.

Beside the transactions and after them; what can't be said is found by those who poll.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count
from uuid import UUID

from .errors import QueuedTasksError
from .settings import Settings
from .store.link import Link

DELAYED = "delayed"  # what servers are told when a task is due later, or waits in the inbox
WISH = "wish"  # what a server is told on its topic when it is to look for what is wanted of it
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.008  # seconds between two notifications
_MANY = 20  # tasks: who hears of so many at once has work until the next notification
_LONGEST_TOPIC = 63  # bytes: what an identifier of PostgreSQL holds
_WORDS = 200  # ids of 36 characters in the 8,000 bytes of a payload


def wake_topic(settings: Settings) -> str:
    """The topic that all servers of this queue listen on: `queue_new_task.queued_tasks` by default."""
    topic = f"{settings.notify_channel}.{settings.schema}"
    if len(topic) <= _LONGEST_TOPIC:
        return topic
    digest = hashlib.sha256(topic.encode()).hexdigest()[:16]
    return f"{topic[: _LONGEST_TOPIC - 17]}.{digest}"


class Announcer:
    """Sends notifications: the first at once, then what has gathered in two milliseconds, in one statement.

    In up to eight while many tasks come, for they are no cheaper to send than a small write.

    `mark` begins the last word of its wake-ups, which is never the same twice: servers that would take the same task
    take turns by it.
    """

    def __init__(self, link: Link, wake: str) -> None:
        self._link = link
        self._wake = wake
        self.mark = f"#{secrets.token_hex(4)}"
        self._turns = count()
        self._lanes: Counter[int] = Counter()
        self._delayed = False
        self._ids: dict[str, dict[str, None]] = {}  # in their order, each once
        self._running: asyncio.Task[None] | None = None

    def lined(self, lanes: Mapping[int, int], delayed: bool = False) -> None:
        """This many tasks may be claimed in these lanes; `delayed`: others are due later."""
        self._lanes.update(lanes)
        self._delayed |= delayed
        self._start()

    def wished(self, servers: Iterable[UUID]) -> None:
        """Somebody wants tasks interrupted that these servers run."""
        self.ended({f"queued_tasks_{server.hex}": [WISH] for server in servers})

    def ended(self, told: Mapping[str, Iterable[str]]) -> None:
        """Tasks ended: their ids, or another word, by the topic of those who wait for them."""
        for topic, ids in told.items():
            self._ids.setdefault(topic, {}).update(dict.fromkeys(ids))
        self._start()

    async def close(self) -> None:
        """Say what is left, but don't insist."""
        if self._running is not None:
            await asyncio.wait([self._running], timeout=1)
            self._running.cancel()

    def _start(self) -> None:
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        pause = _SHORTEST_PAUSE
        while True:
            count, messages = self._lanes.total(), self._take()
            if not messages:
                return
            try:
                await self._link.fetch("notify", *map(list, zip(*messages, strict=True)))
            except QueuedTasksError:
                self._take()  # what has gathered meanwhile would come too late as well
            pause = min(pause * 2, _LONGEST_PAUSE) if count >= _MANY else _SHORTEST_PAUSE
            await asyncio.sleep(pause)

    def _take(self) -> list[tuple[str, str]]:
        lanes, self._lanes = self._lanes, Counter()
        delayed, self._delayed = self._delayed, False
        told, self._ids = self._ids, {}
        messages = [(topic, payload) for topic, ids in told.items() for payload in _payloads(ids)]
        wakes = _payloads([f"{lane}:{lanes[lane]}" for lane in lanes])
        messages += [(self._wake, f"{payload} {self.mark}.{next(self._turns)}") for payload in wakes]
        if delayed:
            messages.append((self._wake, DELAYED))
        return messages


def _payloads(words: Iterable[str]) -> Iterable[str]:
    words = list(words)
    return (" ".join(words[at : at + _WORDS]) for at in range(0, len(words), _WORDS))
