"""What an adapter of a peer offers; `inside` drives it in the peer's own environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

Kind = Literal["noop", "nap", "noop_sync"]


class Producer(Protocol):
    """What adds tasks."""

    async def open(self, dsn: str, clients: int) -> None:
        """Connect, ready for so many concurrent calls."""

    async def enqueue(self, task: int, kind: Kind) -> None:
        """Add one task; it is durable when this returns."""

    async def enqueue_many(self, tasks: Sequence[int], kind: Kind) -> None:
        """Add tasks by the fastest way that the documentation names."""

    async def close(self) -> None:
        """Disconnect."""


class Adapter(Protocol):
    """A module of `peers`."""

    DISTRIBUTION: str
    CONFIGURATION: str
    BULK: str
    PENDING: str  # SQL for one boolean: is any task that was started not finished yet?
    DONE: str | None  # SQL for the number of tasks that succeeded; None where rows are deleted
    SUPERVISED: bool  # worker() starts all BENCH_WORKERS processes; otherwise it is called in each of them

    @staticmethod
    def producer() -> Producer:
        """A new producer."""

    @staticmethod
    async def setup(dsn: str) -> None:
        """Make the schema in an empty database."""

    @staticmethod
    async def worker(dsn: str, concurrency: int) -> None:
        """Run tasks until killed."""
