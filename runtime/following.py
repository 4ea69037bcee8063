"""Who follows which task in this process, and how far each has seen it come. `Waiters` asks the database for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping
from uuid import UUID

from .backend import not_found
from .errors import QueuedTasksError

STAY = 5.0  # seconds that a task stays subscribed after somebody has followed it: he comes back for the next change


class Followers:
    """Those that follow tasks. `fresh` are tasks to be subscribed, `stirred` those that may have something new."""

    def __init__(self) -> None:
        self.fresh: set[UUID] = set()
        self.stirred: set[UUID] = set()
        self._seen: dict[UUID, dict[asyncio.Future[str], str]] = {}
        self._left_at: dict[UUID, float] = {}

    def __bool__(self) -> bool:
        return bool(self._seen)

    def __iter__(self) -> Iterator[UUID]:
        return iter(self._seen)

    def add(self, id: UUID, seen: str) -> asyncio.Future[str]:
        """Somebody has seen a task come as far as `seen` and wants to know when it has come further."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if id not in self._seen:
            self._seen[id] = {}
            self.fresh.add(id)
        self.stirred.add(id)
        self._seen[id][answer] = seen
        return answer

    def leave(self, id: UUID, answer: asyncio.Future[str]) -> None:
        """He has got it, or has given up."""
        if id in self._seen:
            self._seen[id].pop(answer, None)
            self._left_at[id] = time.monotonic()

    def take_idle(self) -> set[UUID]:
        """Tasks that nobody has followed for a while; they are forgotten."""
        limit = time.monotonic() - STAY
        idle = {id for id, answers in self._seen.items() if not answers and self._left_at.get(id, 0.0) < limit}
        for id in idle:
            del self._seen[id]
            self._left_at.pop(id, None)
        return idle

    def take_stirred(self, everybody: bool) -> set[UUID]:
        """The tasks to look at."""
        stirred, self.stirred = self.stirred, set()
        return {id for id in (self._seen if everybody else stirred & self._seen.keys()) if self._seen[id]}

    def resolve(self, found: Mapping[UUID, str | None]) -> None:
        """Tell those who have not seen how far tasks have come."""
        for id, progress in found.items():
            for answer, seen in self._seen.get(id, {}).items():
                if answer.done():
                    continue
                if progress is None:
                    answer.set_exception(not_found(id))
                elif progress != seen:
                    answer.set_result(progress)

    def look_again(self) -> None:
        """Nothing is known for sure any more: what was said may not have been heard."""
        self.fresh.update(self._seen)
        self.stirred.update(self._seen)

    def stir(self, ids: Collection[UUID]) -> None:
        """Something has happened to these tasks."""
        self.stirred.update(ids)

    def fail(self, error: QueuedTasksError) -> None:
        """Nobody is told any more."""
        for answers in self._seen.values():
            for answer in answers:
                if not answer.done():
                    answer.set_exception(error)
