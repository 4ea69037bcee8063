"""When a failed task runs again, and what a task raises to decide it for itself. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias, TypeGuard

from .errors import InvalidTask

Seconds: TypeAlias = timedelta | float
Backoff: TypeAlias = Callable[[int], Seconds] | Seconds

LONGEST_DELAY = timedelta(days=3650)

_FIRST_DELAY = timedelta(seconds=30)
_GROWTH = 4
_CEILING = timedelta(minutes=30)
_STEPS_TO_CEILING = 3  # 30 s * 4**3 is past 30 min
_SPREAD = 0.1


class Retry(Exception):
    """Raised inside a task: run it again after `in_` (None: after its backoff), however many retries are left.

    Raises:
        InvalidTask: `in_` is no number of seconds or timedelta from 0 to ten years.
    """

    in_: timedelta | None = None  # of a subclass that makes itself without what is below
    reason: str = ""

    def __init__(self, in_: Seconds | None = None, *, reason: str = "") -> None:
        super().__init__(reason)
        self.in_ = None if in_ is None else duration("in_", in_)
        self.reason = reason


class Cancel(Exception):
    """Raised inside a task: end it as cancelled, without a retry."""

    reason: str = ""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


def default_backoff(failures: int, *, jitter: float) -> timedelta:
    """30 s * 4**n, capped at 30 min, where n = `failures` - 1; then spread by +-10 %.

    `jitter` is a random number in [0, 1), so that tasks that failed together don't return together; 0.5 is no spread.
    """
    steps = min(max(failures - 1, 0), _STEPS_TO_CEILING)
    delay = min(_FIRST_DELAY * int(_GROWTH**steps), _CEILING)
    return delay * (1 - _SPREAD + 2 * _SPREAD * jitter)


def delay_after(own: Backoff | None, failures: int, jitter: float) -> timedelta:
    """How long to wait after the `failures`-th failure: the function's own backoff as it stands, else the default.

    Never longer than `LONGEST_DELAY`. What a callable backoff raises goes through.

    Raises:
        InvalidTask: a callable backoff returned neither seconds nor a timedelta, or less than 0.
    """
    if own is None:
        return default_backoff(failures, jitter=jitter)
    if not callable(own):
        return duration("backoff", own)
    given = own(failures)
    if _is_number(given) and given > LONGEST_DELAY.total_seconds():
        return LONGEST_DELAY
    if isinstance(given, timedelta):
        given = min(given, LONGEST_DELAY)
    return duration("backoff", given)


def duration(option: str, value: object) -> timedelta:
    """`value`, seconds or a timedelta, as a timedelta.

    Raises:
        InvalidTask: it is neither, or not from 0 to `LONGEST_DELAY`; the text names `option`.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not _is_number(seconds) or not 0 <= seconds <= LONGEST_DELAY.total_seconds():
        raise InvalidTask(f"{option} is {value!r}: give seconds or a timedelta, from 0 to {LONGEST_DELAY.days} days")
    return value if isinstance(value, timedelta) else timedelta(seconds=seconds)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
