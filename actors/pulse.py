"""Whether a worker process answers, and what it says of itself when it doesn't."""

from __future__ import annotations

from ..runtime import wire
from ..runtime.process import WorkerProcess
from ..runtime.stacks import Account

PING_EVERY = 1.0  # seconds
PATIENCE = 1.0  # seconds that a process which doesn't answer has to give an account


class Pulse:
    """Pings a process, one question at a time. Times are readings of time.monotonic()."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._number = 0
        self._sent_at = float("-inf")
        self._waiting = False
        self._asked_at: float | None = None
        self.heard_at = float("-inf")  # when it answered last
        self.account: Account | None = None  # what the last inquiry found

    def beat(self, now: float) -> None:
        """Ping when it is time."""
        if not self._waiting and now - self._sent_at >= PING_EVERY:
            self._number += 1
            self._sent_at = now
            self._waiting = True
            self._process.send(wire.Ping(self._number))

    def hear(self, now: float) -> None:
        """The answer to the last ping has come."""
        self._waiting = False
        self._asked_at = None
        self.heard_at = now

    def silence(self, now: float) -> float:
        """For how many seconds the process has owed an answer."""
        return now - self._sent_at if self._waiting else 0.0

    def inquire(self, now: float) -> bool:
        """Ask what keeps it from answering; call again until this is true, then it has said what it ever will."""
        if self._asked_at is None:
            self._asked_at = now
            self._process.ask()
            return False
        self.account = self._process.account()
        over = now - self._asked_at >= PATIENCE or (self.account is not None and self.account.told)
        if over:
            self._asked_at = None
        return over
