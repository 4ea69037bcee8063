"""The workers of a server, as its supervisor knows them: who is there, who is missing, who is to go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..runtime.actor import ActorRef
from .messages import WorkerMessage

StartWorker = Callable[[int, bool, bool], ActorRef[WorkerMessage]]  # number, sync, standby


@dataclass(slots=True)
class Post:
    """One worker: `ready` has imported the application, `active` takes tasks, `gone` only its actor is left.

    `worn` has to be replaced, and takes tasks until its successor does; `leaving` takes none any more.
    """

    ref: ActorRef[WorkerMessage]
    number: int
    sync: bool
    standby: bool
    ready: bool = False
    active: bool = False
    worn: bool = False
    leaving: bool = False
    gone: bool = False

    @property
    def serves(self) -> bool:
        """Whether it takes tasks, or will."""
        return not (self.standby or self.leaving or self.gone)

    @property
    def came_up(self) -> bool:
        return self.active or (self.standby and self.ready)


class Staff:
    """The posts by number."""

    def __init__(self, start_worker: StartWorker) -> None:
        self._start_worker = start_worker
        self._posts: dict[int, Post] = {}
        self._numbers = 0

    def __iter__(self) -> Iterator[Post]:
        return iter(self._posts.values())

    def __getitem__(self, number: int) -> Post:
        return self._posts[number]

    def __len__(self) -> int:
        return len(self._posts)

    def start(self, sync: bool, *, standby: bool) -> None:
        self._numbers += 1
        ref = self._start_worker(self._numbers, sync, standby)
        self._posts[self._numbers] = Post(ref, self._numbers, sync, standby)

    def remove(self, number: int) -> ActorRef[WorkerMessage]:
        return self._posts.pop(number).ref

    def alive(self) -> list[Post]:
        return [post for post in self if not post.gone]

    def serving(self, sync: bool) -> list[Post]:
        return [post for post in self if post.serves and post.sync is sync]

    def standby(self) -> Post | None:
        return next((post for post in self if post.standby and not (post.gone or post.leaving)), None)
