"""What many tasks, ends or lines become on their way to PostgreSQL: the arrays that a statement takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ..task import ContextWrite, LogWrite, NewTask, Stance


def _form(task: NewTask) -> tuple[object, ...]:
    """What many tasks have in common; an attrgetter takes twice as long for it."""
    return (
        task.function,
        task.executor,
        task.name,
        task.channel,
        task.priority,
        task.max_retries,
        task.timeout,
        task.auto_remove,
        task.on_parent_failure,
    )


def forms_of(tasks: Sequence[NewTask]) -> tuple[list[int] | None, Sequence[NewTask]]:
    """The number of each task's form, None where all have the same; and a task of each form."""
    forms = [*map(_form, tasks)]
    if forms.count(forms[0]) == len(forms):
        return None, tasks[:1]
    one_of = dict(zip(forms, tasks, strict=True))
    numbers = {form: number for number, form in enumerate(one_of, 1)}
    return [numbers[form] for form in forms], [*one_of.values()]


def column(values: list[Any]) -> list[Any] | None:
    """None for a column that is null throughout: it costs nothing to send."""
    return values if values.count(None) < len(values) else None


def later(attempts: list[int]) -> list[int] | None:
    """None when all are first ones: asyncpg looks at each number of a column twice, in Python."""
    return attempts if attempts.count(1) < len(attempts) else None


def shared(outcomes: list[str]) -> list[str]:
    """One for all where they are alike."""
    return outcomes[:1] if outcomes[:1] * len(outcomes) == outcomes else outcomes


def uuid_array(ids: Sequence[UUID]) -> str:
    """An array of ids as one text."""
    return "{" + ",".join(map(str, ids)) + "}"


def context_columns(contexts: Sequence[ContextWrite]) -> list[list[Any]]:
    """Contexts that are recorded."""
    return [
        [write.claimed.lease for write in contexts],
        [write.claimed.id for write in contexts],
        [write.claimed.attempt for write in contexts],
        [write.version for write in contexts],
        [write.value for write in contexts],
    ]


def stance_columns(stances: Sequence[Stance]) -> list[list[str]]:
    """What a server says of functions."""
    return [
        [stance.function for stance in stances],
        [stance.kind for stance in stances],
        [stance.reason for stance in stances],
    ]


def log_columns(logs: Sequence[LogWrite]) -> list[list[Any]]:
    """Lines that are recorded."""
    now = time.monotonic()
    return [
        [line.claimed.lease for line in logs],
        [line.claimed.id for line in logs],
        [line.claimed.attempt for line in logs],
        [now - line.at for line in logs],
        [line.level for line in logs],
        [line.logger for line in logs],
        [line.message for line in logs],
        [line.exception for line in logs],
    ]
