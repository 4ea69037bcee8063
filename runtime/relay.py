"""One works at a time, for all who wait: each of them is let go when its part is done, or has the next turn."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import NamedTuple

_TICK = 0.001  # seconds: by so much a timer of the loop may be early


class _Waiting(NamedTuple):
    turn: asyncio.Future[bool]
    is_done: Callable[[], bool]
    deadline: float


class Relay:
    """Turns, in the order in which they were asked for. `holder` is the asyncio task that has the turn."""

    def __init__(self) -> None:
        self.holder: asyncio.Task[object] | None = None
        self._taken = False
        self._line: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None  # one for the whole line: each would cost as much as the rest

    async def take(self, is_done: Callable[[], bool], deadline: float = math.inf) -> bool:
        """Wait for a turn. False: what the caller came for `is_done` by somebody else, and it has no turn.

        Whoever has the turn has to `pass_on`. Raises TimeoutError at the `deadline`, an instant of the loop's clock.
        """
        if not self._taken:
            self._taken = True
            self.holder = asyncio.current_task()
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._line.append(_Waiting(turn, is_done, deadline))
        if self._timer is None or deadline < self._timer.when():
            self._watch(deadline)
        try:
            if await turn:
                self.holder = asyncio.current_task()
                return True
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None and turn.result():
                self.pass_on()
            raise
        return False

    def pass_on(self) -> None:
        """Let those go whose part is done, then give the turn to the first of the others.

        So that one comes last to run, and finds what those who went have added since.
        """
        self.holder = None
        self._taken = False
        line, self._line = self._line, []
        for waiting in line:
            if waiting.turn.done():
                continue
            if waiting.is_done():
                waiting.turn.set_result(False)
            else:
                self._line.append(waiting)
        if self._line:
            self._taken = True
            self._line.pop(0).turn.set_result(True)

    def _watch(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        endless = deadline == math.inf
        self._timer = None if endless else asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time() + _TICK
        for waiting in self._line:
            if waiting.deadline <= now and not waiting.turn.done():
                waiting.turn.set_exception(TimeoutError())
        self._line = [waiting for waiting in self._line if not waiting.turn.done()]
        self._timer = None
        self._watch(min((waiting.deadline for waiting in self._line), default=math.inf))
