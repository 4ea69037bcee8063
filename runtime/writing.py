"""What an outbox asks of whoever writes its tasks, and of a batch that is written while it is still being made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from .task import NewTask


class Draft(Protocol):
    """A batch that is written part by part, and committed or undone as a whole."""

    async def send(self, tasks: Sequence[NewTask]) -> None:
        """Write the next part: it is on its way when this returns."""

    async def finish(self) -> bool:
        """Commit. False: it came to nothing, unless the answer was lost, so write all of it, as a repetition."""

    def drop(self) -> None:
        """Undo it, unless it is finished."""


class Writer(Protocol):
    """Whoever writes tasks for good."""

    async def write(self, tasks: Sequence[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:
        """Write all of `tasks` or none; return winners by loser, for those whose unique key another task holds.

        `repeat`: an earlier call may have been carried out, and a task that was there is its own winner. Cancelling the
        call gives the tasks up.
        """

    def draft(self, patience: float) -> Draft | None:
        """Begin to write a batch that is still being made, and give up after so many seconds; None if that can't be."""

    async def was_written(self, id: UUID) -> bool:
        """Whether a task was ever committed; it may have been removed since."""

    async def note(self, id: UUID, message: str, exception: str) -> None:
        """Add an error to what a task has logged, if it is committed."""

    async def expect(self, ids: Sequence[UUID]) -> None:
        """Keep the results of tasks that are not written yet for who will wait here, though they remove themselves."""


def without_own(losers: dict[UUID, UUID]) -> dict[UUID, UUID]:
    """These without the tasks that were there already, where an earlier try may have been what wrote them."""
    return {loser: winner for loser, winner in losers.items() if loser != winner}
