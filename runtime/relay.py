"""One works at a time, for all who wait: each of them is let go when its part is done, or has the next turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Relay:
    """Turns, in the order in which they were asked for. `holder` is the asyncio task that has the turn."""

    def __init__(self) -> None:
        self.holder: asyncio.Task[object] | None = None
        self._taken = False
        self._line: list[tuple[asyncio.Future[bool], Callable[[], bool]]] = []

    async def take(self, is_done: Callable[[], bool], deadline: float | None = None) -> bool:
        """Wait for a turn. False: what the caller came for `is_done` by somebody else, and it has no turn.

        Whoever has the turn has to `pass_on`. Raises TimeoutError at the `deadline`, an instant of the loop's clock.
        """
        if not self._taken:
            self._taken = True
            self.holder = asyncio.current_task()
            return True
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._line.append((turn, is_done))
        timer = None if deadline is None else loop.call_at(deadline, _expire, turn)
        try:
            if await turn:
                self.holder = asyncio.current_task()
                return True
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None and turn.result():
                self.pass_on()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return False

    def pass_on(self) -> None:
        """Let those go whose part is done, then give the turn to the first of the others.

        So that one comes last to run, and finds what those who went have added since.
        """
        self.holder = None
        self._taken = False
        line, self._line = self._line, []
        for turn, is_done in line:
            if turn.done():
                continue
            if is_done():
                turn.set_result(False)
            else:
                self._line.append((turn, is_done))
        if self._line:
            self._taken = True
            self._line.pop(0)[0].set_result(True)


def _expire(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_exception(TimeoutError())
