"""Listen for wake-ups, and hold the lock by which peers see that this process lives."""

from __future__ import annotations

from typing import assert_never

from loguru import logger

from ..runtime.actor import Actor, ActorRef
from ..runtime.announce import DELAYED, WISH
from ..runtime.ear import SharedEar
from ..runtime.errors import DatabaseUnavailable
from ..runtime.store.topics import Topics
from .identity import Identity
from .messages import (
    ANY_LANE,
    ClaimerMessage,
    JanitorMessage,
    KeeperMessage,
    ListenerMessage,
    Recheck,
    Reconnect,
    SettlerMessage,
    Tick,
    Wake,
)

PROBE_EVERY = 10  # ticks


class Listener(Actor[ListenerMessage]):
    """One connection that only listens. Without it, or without an answer on it, the polls of the others still find all.

    `topic` is the one on which enqueuers and servers say what has changed; None with notifications off. `mark` is the
    announcer's of this server, whose claimer knows of these wake-ups already.
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        identity: Identity,
        claimer: ActorRef[ClaimerMessage],
        janitor: ActorRef[JanitorMessage],
        keeper: ActorRef[KeeperMessage],
        settler: ActorRef[SettlerMessage],
        ear: SharedEar,
        *,
        topic: str | None,
        mark: str | None,
    ) -> None:
        self._mark = mark
        self._identity = identity
        self._claimer = claimer
        self._janitor = janitor
        self._keeper = keeper
        self._settler = settler
        self._ear = ear
        self._topic = topic
        self._topics = Topics(
            dsn,
            schema,
            name=f"server {identity.name}: listen",
            on_notified=self._notified,
            on_lost=lambda: self.ref.tell(Reconnect()),
        )
        self._open = False
        self._warned = False
        self._ticks = 0

    async def started(self) -> None:
        self.ref.tell(Reconnect())

    async def stopped(self) -> None:
        self._topics.close()

    async def receive(self, message: ListenerMessage) -> None:
        match message:
            case Reconnect():
                await self._connect()
            case Tick():
                await self._look_after()
            case _:
                assert_never(message)

    async def _connect(self) -> None:
        self._open = False
        self._ear.listens(False)
        # A key of its own for every session: the one before may still be held by a connection that hangs.
        key = self._identity.renew_lock_key()
        try:
            held = await self._topics.open([self._topic, self._identity.topic] if self._topic else [], lock_key=key)
        except DatabaseUnavailable as error:
            self._identity.lock_key = None
            logger.debug("not listening: {}", error)
            return
        if not held:
            self._identity.lock_key = None
            self._warn_of_pooler()
        self._open = True
        self._keeper.tell(Tick())  # peers are to know the new key
        # what was said meanwhile went unheard
        self._claimer.tell(Wake())
        self._janitor.tell(Wake())
        self._settler.tell(Recheck())
        self._ear.listens(self._topic is not None)

    def _warn_of_pooler(self) -> None:
        if self._topic is not None and not self._warned:
            logger.warning(
                "a pooler stands before PostgreSQL: notifications may not come, and peers notice the death of this "
                "server only when its lease has run out; set QUEUE_LISTEN_DATABASE_URL to PostgreSQL itself"
            )
            self._warned = True

    async def _look_after(self) -> None:
        """A half-open connection looks alive until somebody asks; one that could not be opened is tried again."""
        self._ticks += 1
        if not self._open:
            await self._connect()
        elif self._ticks % PROBE_EVERY == 0:
            try:
                await self._topics.probe()
            except DatabaseUnavailable:
                await self._connect()

    def _notified(self, topic: str, payload: str) -> None:
        if topic == self._identity.topic and payload == WISH:
            self._keeper.tell(Tick())
        elif topic == self._identity.topic:
            self._ear.hear(payload)
        elif payload == DELAYED:
            self._janitor.tell(Wake())
        else:
            self._claimer.tell(_wake(payload, self._mark))


def _wake(payload: str, mark: str | None) -> Wake:
    """What `7:1 9:20 #turn` says: how many tasks came into which lane. Those that `mark` begins were told before."""
    *words, last = payload.split() or [""]
    turn = last if last.startswith("#") else ""
    pairs = [word.partition(":") for word in (words if turn else [*words, last])]
    counts = {int(lane): int(count) for lane, _, count in pairs if lane.isdecimal() and count.isdecimal()}
    known = turn and mark is not None and turn.startswith(mark)
    return Wake(max(counts, default=ANY_LANE), 0 if known else sum(counts.values()), "" if known else turn)
