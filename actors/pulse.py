"""Whether a worker process answers, what it takes, and when it has to be killed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from loguru import logger

from ..runtime import wire
from ..runtime.process import WorkerProcess
from .held import Held
from .judgement import Judgement, judge
from .vitals import WorkerVitals

PING_EVERY = 1.0  # seconds; so often it is measured, too
SILENCE = 2.0  # seconds without an answer after which a process is blocked
SHOWN_AFTER = 5.0  # seconds without an answer after which that is said
PATIENCE = 1.0  # seconds that a blocked process has to say what blocks it
CLEANUP_GRACE = 4.0  # seconds that an attempt has to end once it was told to, before its process is killed
BLOCKED_GRACE = (
    1.0  # seconds beyond its time after which one is late that can't be told, because its process is blocked
)


class Pulse:
    """Pings a worker's process, one question at a time. Times are readings of time.monotonic().

    `answers` is called with False when the process stops to answer, with True when it does so again. `alone`: it never
    runs more than one attempt at a time; then nobody needs to be told that it is blocked.
    """

    def __init__(
        self,
        name: str,
        process: WorkerProcess,
        vitals: WorkerVitals,
        answers: Callable[[bool], None],
        *,
        alone: bool,
    ) -> None:
        self._name = name
        self._process = process
        self._vitals = vitals
        self._answers = answers
        self._alone = alone
        self._number = 0
        self._sent_at = float("-inf")
        self._heard_at = float("-inf")
        self._waiting = False
        self._asked_at: float | None = None
        self._measured_at = float("-inf")
        self._cpu_seconds = 0.0

    def tick(self, running: Mapping[int, Held], now: float) -> Judgement | None:
        """Ping when it is time. Why the process has to be killed, if it has to be."""
        if not self._waiting and now - self._sent_at >= PING_EVERY:
            self._number += 1
            self._sent_at = now
            self._waiting = True
            self._process.send(wire.Ping(self._number))
        silence = now - self._sent_at if self._waiting else 0.0
        if silence <= SILENCE:
            return _stubborn(running.values(), now)
        if self._vitals.answers:
            self._vitals.answers = False
            self._answers(False)
        return self._look_at_blocked(running, silence, now)

    def measure(self, now: float) -> None:
        """Note what the process takes, when it is time."""
        if now - self._measured_at < PING_EVERY:
            return
        usage, vitals = self._process.usage(), self._vitals
        share = (usage.cpu_seconds - self._cpu_seconds) / (now - self._measured_at)
        self._measured_at, self._cpu_seconds = now, usage.cpu_seconds
        vitals.cpu = (vitals.cpu + share) / 2  # so that a moment is not taken for a trend
        vitals.memory = usage.memory

    def hear(self, late: Collection[int], running: Mapping[int, Held], now: float) -> None:
        """The process has answered the last ping; `late` were told to end and have not."""
        for no, held in running.items():
            if held.started is not None and held.started > self._heard_at:
                held.started = now  # the process may have been busy with something else since it was sent there
            held.told = (held.told or now) if no in late else None
        self._waiting = False
        self._asked_at = None
        self._heard_at = now
        if self._vitals.blocked is not None:
            logger.info("{} answers again", self._name)
            self._vitals.blocked = None
        if not self._vitals.answers:
            self._vitals.answers = True
            self._answers(True)

    def _look_at_blocked(self, running: Mapping[int, Held], silence: float, now: float) -> Judgement | None:
        """Say what blocks the process. It is killed for what is late in it, at once if that is to blame."""
        late = [held for held in running.values() if held.is_late(now, BLOCKED_GRACE)]
        tells = not self._alone and silence > SHOWN_AFTER and self._vitals.blocked is None
        if not (late or tells) or not self._has_said_all(now):
            return None
        judgement = judge(running, late, self._process.account(), alone=self._alone)
        if judgement.culprits or any(held.is_late(now, CLEANUP_GRACE) for held in late):
            return judgement
        if tells:
            self._vitals.blocked = judgement.reason
            logger.warning("{} does not answer: {}", self._name, judgement.reason)
        return None

    def _has_said_all(self, now: float) -> bool:
        """Ask what keeps the process from answering; true once it has said what it ever will."""
        if self._asked_at is None:
            self._asked_at = now
            self._process.ask()
            return False
        account = self._process.account()
        if now - self._asked_at < PATIENCE and not (account is not None and account.told):
            return False
        self._asked_at = None
        return True


def _stubborn(running: Collection[Held], now: float) -> Judgement | None:
    """The process has to be killed for what has not ended although it was told to."""
    stubborn = [held for held in running if held.told and now > held.told + CLEANUP_GRACE]
    if not stubborn:
        return None
    names = ", ".join(f"{held.claimed.id} ({held.claimed.name})" for held in stubborn)
    return Judgement(f"it was told to end, and goes on: task {names}", tuple(stubborn))
