"""Cron expressions in a time zone: when they are due, and what becomes of the due times that were missed. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from .errors import ConfigurationError

GRACE: Final = timedelta(seconds=60)  # how late a due time may fire where missed ones are not made up for
MOST_MADE_UP: Final = 1_000
_FIELDS: Final = 5
_LONGEST: Final = 200  # characters
_ORIGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about the due times so far: skip those up to and with `skip`, then fire `fires`, oldest first."""

    skip: datetime | None
    fires: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression of five fields (minute, hour, day of month, month, day of week) in a time zone.

    When clocks go forward, what is due at a fixed time within the skipped hour is due once, right after it; when they
    go back, a fixed time within the repeated hour is due once, the first time. An expression with a `*` for the hour or
    the minute follows the time that really passes: nothing in the skipped hour, twice in the repeated one. So does
    Debian's cron.

    Raises:
        ConfigurationError: the expression or the zone is none, or it is never due.
    """

    expression: str
    timezone: str

    def __post_init__(self) -> None:
        _check_zone(self.timezone)
        expression = self.expression
        if not isinstance(expression, str) or len(expression) > _LONGEST or len(expression.split()) != _FIELDS:
            raise ConfigurationError(
                f"cron is {expression!r:.60}: give five fields (minute hour day month weekday), such as '0 8 * * *'"
            )
        try:
            due = next(self.after(_ORIGIN), None)
        except (CronSimError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"cron is {expression!r:.60}: {error}, so correct that field") from None
        if due is None:
            raise ConfigurationError(f"cron is {expression!r:.60}, which is never due: correct the day or the month")

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Every due time later than `instant`, in UTC, in order."""
        last = instant
        for local in CronSim(self.expression, instant.astimezone(self.zone)):
            due = local.astimezone(UTC)
            if due > last:  # fixed times within the skipped hour coincide; near the repeated one they may lie behind
                last = due
                yield due

    def next_after(self, instant: datetime) -> datetime:
        """The first due time later than `instant`, in UTC."""
        return next(self.after(instant))

    def due_between(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """The due times later than `after`, up to and with `until`, oldest first; the last `limit` when there are more.

        The work is in proportion to `limit`, however long the time in between.
        """
        span = timedelta(minutes=limit)  # no more than one a minute
        while True:
            start = after if until - after <= span else until - span
            found = list(deque(takewhile(lambda due: due <= until, self.after(start)), maxlen=limit))
            if len(found) == limit or start == after:
                return found
            span *= 2

    def plan(self, after: datetime, now: datetime, *, catch_up: bool) -> Plan:
        """What follows at `now`, when everything up to `after` has been seen to.

        With `catch_up` all that was missed is fired, the last 1,000 at most; without, what is late by no more than a
        minute.
        """
        due = self.due_between(after, now, MOST_MADE_UP + 1)
        late = len(due) - MOST_MADE_UP if catch_up else sum(1 for each in due if now - each > GRACE)
        late = max(late, 0)
        return Plan(due[late - 1] if late else None, tuple(due[late:]))

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, TypeError, OSError, AttributeError):
        raise ConfigurationError(
            f"timezone is {name!r:.60}: give a name such as 'Europe/Berlin'; where none is known, install tzdata"
        ) from None
