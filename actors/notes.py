"""What the attempts of a worker say before they end, until somebody records it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from ..runtime import wire
from ..runtime.task import ContextWrite, LogWrite, NewTask, Settled
from .held import Held
from .messages import Outcomes, Writes
from .vitals import Vitals

FLUSH_EVERY = 0.2  # seconds between two writes of contexts and logs
MOST_LINES = 10_000  # that are kept while PostgreSQL hangs
MOST_TEXT = 16 * 1024 * 1024  # characters, in all lines


class Notes:
    """Contexts by the numbers of their attempts, of each the last one, and lines of logs in their order.

    They are kept here while the recorder has others.
    """

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._contexts: dict[int, ContextWrite] = {}
        self._logs: list[LogWrite] = []
        self._text = 0
        self._lost = 0
        self._flushed_at = 0.0
        self._last = Writes([], [], done=True)

    def context(self, no: int, write: ContextWrite) -> None:
        self._contexts[no] = write

    def forget_context(self, no: int) -> None:
        """Somebody else records the context of this attempt."""
        self._contexts.pop(no, None)

    def log(self, lines: Iterable[wire.LogLine], attempts: Mapping[int, Held]) -> None:
        """Lines of attempts that have ended are dropped."""
        now = time.monotonic()
        for line in lines:
            held, size = attempts.get(line.no), _size(line)
            if len(self._logs) >= MOST_LINES or self._text + size > MOST_TEXT:
                self._lost += 1
            elif held is not None:
                self._text += size
                self._logs.append(
                    LogWrite(held.claimed, now - line.ago, line.level, line.logger, line.message, line.exception)
                )

    def hand_over(
        self, settled: list[Settled], contexts: list[ContextWrite], added: list[tuple[Settled, list[NewTask]]]
    ) -> Outcomes:
        """How attempts ended, with what they logged last: from now on it counts as unrecorded."""
        logs = self._take_last_logs(settled)
        size = _characters(settled, contexts, logs, added)
        self._vitals.unrecorded += size
        return Outcomes(settled, contexts, logs, added, size=size)

    def take_due(self, now: float) -> Writes | None:
        """All of it, once it is time."""
        due = self._last.done and now - self._flushed_at >= FLUSH_EVERY
        if not due or not (self._contexts or self._logs):
            return None
        self._flushed_at = now
        self._last = Writes(list(self._contexts.values()), self._logs, self._lost)
        self._contexts, self._logs, self._text, self._lost = {}, [], 0, 0
        return self._last

    def _take_last_logs(self, settled: Iterable[Settled]) -> list[LogWrite]:
        """Not what others logged: a settlement may be repeated, and only what it ends is then known to be written."""
        if not self._logs:
            return []
        ended = {end.id for end in settled}
        last = [line for line in self._logs if line.claimed.id in ended]
        self._logs = [line for line in self._logs if line.claimed.id not in ended]
        self._text -= sum(map(_size, last))
        return last


def _characters(
    settled: Sequence[Settled],
    contexts: Sequence[ContextWrite],
    logs: Sequence[LogWrite],
    added: Sequence[tuple[Settled, list[NewTask]]],
) -> int:
    size = sum([len(end.result) for end in settled if end.result])
    size += sum([len(end.exception_traceback) for end in settled if end.exception_traceback])
    size += sum([len(write.value) for write in contexts])
    size += sum(map(_size, logs))
    return size + sum([len(task.args) + len(task.kwargs or "") for _, tasks in added for task in tasks])


def _size(line: wire.LogLine | LogWrite) -> int:
    return len(line.message) + len(line.exception or "")
