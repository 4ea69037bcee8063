"""Tell this server's claimer, the other servers, and those who wait, what the own writes have set free or ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..runtime.actor import ActorRef
from ..runtime.announce import Announcer
from .messages import ANY_LANE, ClaimerMessage, DueIn, JanitorMessage, Wake


class Announcements:
    """With notifications off (`announcer` None) only the own actors hear of it."""

    def __init__(
        self, claimer: ActorRef[ClaimerMessage], janitor: ActorRef[JanitorMessage], announcer: Announcer | None
    ) -> None:
        self._claimer = claimer
        self._janitor = janitor
        self._announcer = announcer

    def lined(self, count: int) -> None:
        """So many tasks may be claimed."""
        if count:
            self._claimer.tell(Wake(count=count))
            if self._announcer is not None:
                self._announcer.lined({ANY_LANE: count})

    def delayed(self, seconds: float) -> None:
        """A task is due in so many seconds. The others look every now and then; it is only this server that hurries."""
        self._janitor.tell(DueIn(seconds))

    def ended(self, told: Mapping[str, Iterable[str]]) -> None:
        """Tasks ended: their ids by the topic of those who wait for them."""
        if told and self._announcer is not None:
            self._announcer.ended(told)
