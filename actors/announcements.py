"""Tell this server's claimer, the other servers, and those who wait, what the own writes have set free or ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..runtime.actor import ActorRef
from ..runtime.announce import Announcer
from .messages import ClaimerMessage, Wake

_ANY_LANE = 0


class Announcements:
    """With notifications off (`announcer` None) only the own claimer hears of it."""

    def __init__(self, claimer: ActorRef[ClaimerMessage], announcer: Announcer | None) -> None:
        self._claimer = claimer
        self._announcer = announcer

    def lined(self, count: int) -> None:
        """So many tasks may be claimed."""
        if count:
            self._claimer.tell(Wake())
            if self._announcer is not None:
                self._announcer.lined({_ANY_LANE: count})

    def ended(self, told: Mapping[str, Iterable[str]]) -> None:
        """Tasks ended: their ids by the topic of those who wait for them."""
        if told and self._announcer is not None:
            self._announcer.ended(told)
