"""Do for workers what needs a connection: they have none."""

from __future__ import annotations

from ..runtime.actor import Actor
from ..runtime.settings import Settings
from .messages import DeskMessage


class Desk(Actor[DeskMessage]):
    def __init__(self, dsn: str, settings: Settings) -> None:
        self._dsn = dsn
        self._settings = settings

    async def receive(self, message: DeskMessage) -> None:
        raise NotImplementedError
