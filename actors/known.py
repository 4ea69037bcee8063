"""What this server's workers say of the functions that have lanes of their own."""

from __future__ import annotations

from collections.abc import Iterable

from loguru import logger

from ..runtime.store.lanes import Lane
from ..runtime.task import Stance


class Known:
    """Remembered for as long as this start of the server lasts, however often workers are replaced.

    A function that one worker could not run is not known, whatever others say: its tasks would go round in circles.
    """

    def __init__(self) -> None:
        self._stances: dict[str, Stance] = {}
        self._asked: set[str] = set()
        self._declined: set[int] = set()

    def takes(self, lane: Lane) -> bool:
        """Whether this server may claim from that lane."""
        if lane.function is None:
            return True
        stance = self._stances.get(lane.function)
        return stance is not None and stance.kind == "known"

    def learn(self, stances: Iterable[Stance]) -> None:
        """What a worker has found out."""
        for stance in stances:
            before = self._stances.get(stance.function)
            if before is not None and (before.kind != "known" or stance.kind == "known"):
                continue
            self._stances[stance.function] = stance
            if stance.kind != "known":
                logger.warning("tasks of {} are left to other servers: {}", stance.function, stance.reason)

    def to_ask(self, lanes: Iterable[Lane]) -> list[str]:
        """Functions that a worker is to be asked about; each is named once, until `ask_again`."""
        functions = {lane.function for lane in lanes if lane.function is not None}
        ask = sorted(functions - self._stances.keys() - self._asked)
        self._asked.update(ask)
        return ask

    def ask_again(self) -> None:
        """Whoever was asked may be gone, or blocked."""
        self._asked.clear()

    def to_decline(self, lanes: Iterable[Lane]) -> list[Stance]:
        """What is to be said to the others, once for each lane that this server does not take."""
        left = {lane.id: lane.function for lane in lanes if lane.function in self._stances and not self.takes(lane)}
        functions = {function for id, function in left.items() if function and id not in self._declined}
        self._declined = {*left}
        return [self._stances[function] for function in sorted(functions)]
