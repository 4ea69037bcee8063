"""What is logged inside a worker, by stdlib logging or loguru: kept in bounds, told to the server and to the task.

Importing this changes nobody's logging; only a worker calls `Capture`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Final

from loguru import logger as loguru_logger

from . import wire
from .current import get_running
from .lifecycle import storable
from .traces import LONGEST_TRACEBACK, formatted

if TYPE_CHECKING:
    from loguru import Message, Record

MOST_LINES: Final = 10_000
MOST_TEXT: Final = 16 * 1024 * 1024  # characters, in all lines

_LONGEST_MESSAGE: Final = 16 * 1024
_LINES_A_FRAME: Final = 200
_LEAST: Final = logging.DEBUG
_SMALLEST_LEVEL: Final = -32_768  # that PostgreSQL keeps, in a smallint
_LARGEST_LEVEL: Final = 32_767

_own: set[str] = set()  # the loggers that were asked for here


def getLogger(name: str) -> logging.Logger:  # noqa: N802  # the name that the contract gives it
    """The standard library's logger `name`: inside a task what it logs, DEBUG included, is kept with the task, too."""
    _own.add(name)
    own = logging.getLogger(name)
    if _captures:
        _open(own)
    return own


class Lines:
    """What was logged and not yet sent. Takes lines on any thread, never waits; what does not fit is counted.

    `wake` is called, on the thread that logs, when there is something to take.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = RLock()  # a finalizer that runs while it is held may log
        self._waiting: deque[tuple[float, int | None, wire.Record]] = deque()
        self._text = 0
        self._dropped: Counter[int | None] = Counter()

    def __bool__(self) -> bool:
        return bool(self._waiting or self._dropped)

    def add(self, level: int, logger: str, message: str, exception: str | None) -> None:
        running = get_running()
        no = None if running is None else running.attempt.no
        if no is None and level < logging.INFO:
            return
        record = wire.Record(
            min(max(level, _SMALLEST_LEVEL), _LARGEST_LEVEL),
            storable(logger, 200),
            storable(message, _LONGEST_MESSAGE),
            None if exception is None else storable(exception, LONGEST_TRACEBACK),
        )
        with self._lock:
            first = not self
            self._keep(no, record)
        if first:
            self._wake()

    def take(self) -> list[wire.Record | wire.Logged]:
        """All that was logged so far, as the frames to send; those of a task's own lines first."""
        with self._lock:
            taken, dropped = self._waiting, self._dropped
            self._waiting, self._text, self._dropped = deque(), 0, Counter()
        now = time.monotonic()
        lines = [
            wire.LogLine(no, now - at, record.level, record.logger, record.message, record.exception)
            for at, no, record in taken
            if no is not None
        ]
        lines += [
            wire.LogLine(no, 0.0, logging.WARNING, __name__, _overflow(count), None)
            for no, count in dropped.items()
            if no is not None
        ]
        frames: list[wire.Record | wire.Logged] = [
            wire.Logged(lines[start : start + _LINES_A_FRAME]) for start in range(0, len(lines), _LINES_A_FRAME)
        ]
        frames += [record for _, _, record in taken if record.level >= logging.INFO]
        if dropped:
            frames.append(wire.Record(logging.WARNING, __name__, _overflow(dropped.total()), None))
        return frames

    def _keep(self, no: int | None, record: wire.Record) -> None:
        size = len(record.message) + len(record.exception or "")
        if len(self._waiting) >= MOST_LINES or self._text + size > MOST_TEXT:
            self._dropped[no] += 1
            return
        self._text += size
        self._waiting.append((time.monotonic(), no, record))


class Capture:
    """Sends all that is logged in this process to `lines`. `install` may be called again, after the user's own code."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._handler = _Handler(lines)
        self._sink: int | None = None
        _captures.append(self)
        loguru_logger.remove()  # its own sink writes to stderr, which is the server's

    def install(self) -> None:
        """Be among the handlers of the root logger and the sinks of loguru, whatever was changed about them."""
        root = logging.getLogger()
        if self._handler not in root.handlers:
            root.addHandler(self._handler)
        if root.level == logging.WARNING:
            root.setLevel(logging.INFO)
        for name in [*_own]:
            _open(logging.getLogger(name))
        self._install_sink()

    def _install_sink(self) -> None:
        if self._sink is not None:
            try:
                loguru_logger.remove(self._sink)
            except ValueError:
                self._sink = None
        self._sink = loguru_logger.add(self._take_message, format=_nothing, level=_LEAST)

    def _take_message(self, message: Message) -> None:
        record = message.record
        exception = record["exception"]
        text = None if exception is None else formatted(exception.type, exception.value, exception.traceback)
        self._lines.add(record["level"].no, record["name"] or "", record["message"], text)


class _Handler(logging.Handler):
    def __init__(self, lines: Lines) -> None:
        super().__init__(_LEAST)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception as error:
            message = f"{record.msg!s:.1000} (its arguments don't fit: {error})"
        exception = formatted(*record.exc_info) if record.exc_info else record.exc_text
        self._lines.add(record.levelno, record.name, message, exception)


_captures: list[Capture] = []


def _open(own: logging.Logger) -> None:
    if own.level == logging.NOTSET:
        own.setLevel(_LEAST)


def _overflow(dropped: int) -> str:
    return f"{dropped} log lines were dropped here: more was logged at once than a worker keeps"


def _nothing(_record: Record) -> str:
    return ""
