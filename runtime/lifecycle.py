"""What follows on the end of an attempt: the task's end, or another attempt and when. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from .options import UNDECLARED, TaskOptions
from .retry import Backoff, Cancel, Retry, default_backoff, delay_after, duration

MOST_TIMEOUTS: Final = 2  # the first run, and the one retry that a timeout is granted
MOST_CRASHES: Final = 3
PARDONED: Final = 5  # interruptions before a lost server is a crash: some are innocent, deploys interrupt long tasks

_SOON: Final = 0.001  # seconds; 0 would put the task ahead of the line
_LONGEST_MESSAGE: Final = 16_000  # characters
_LONGEST_NAME: Final = 200

# What a class, or its own, has made of these may raise, or never end.
_NAME: Final = type.__dict__["__name__"].__get__
_INNER: Final = BaseExceptionGroup.__dict__["exceptions"].__get__


class Budget(Protocol):
    """What an attempt knows of those before it: how many failed (timeouts included), how many timed out."""

    @property
    def failures(self) -> int: ...

    @property
    def timeouts(self) -> int: ...

    @property
    def max_retries(self) -> int: ...


class Why(StrEnum):
    """Why an attempt is ended from outside."""

    CANCEL = "cancel"  # somebody's wish, for good
    STOP = "stop"  # somebody's wish, until a retry by hand
    DRAIN = "drain"  # its server goes
    TIMEOUT = "timeout"


class Interrupted(BaseException):
    """Raised in a task's function at its deadline, or when it is cancelled or stopped. Let it pass."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended, in the words of `Settled`: without a `delay` (seconds) the task ends with `outcome`."""

    outcome: str
    delay: float | None = None
    exception_name: str | None = None
    exception_message: str | None = None


DONE: Final = Verdict("done")
INTERRUPTED: Final = Verdict("interrupted", 0.0)
BLOCKED: Final = Verdict("blocked", 0.0)  # it blocked its event loop, or may have: from now on it runs alone
STOPPED: Final = Verdict("stopped", math.inf)


def own_word(error: BaseException) -> BaseException:
    """The Retry or Cancel in a group of nothing else, which is how a TaskGroup passes one on; else the error itself.

    Of several a Cancel counts, else the first.
    """
    leaves = _leaves(error)
    if not all(isinstance(leaf, Retry | Cancel) for leaf in leaves):
        return error
    return next((leaf for leaf in leaves if isinstance(leaf, Cancel)), leaves[0])


def after_error(error: BaseException, budget: Budget, options: TaskOptions, jitter: float) -> Verdict:
    """What the task's own code asked for by raising `error`; `jitter` is a random number in [0, 1)."""
    if isinstance(error, Cancel):
        return Verdict("cancelled", None, "Cancel", _reason_of(error))
    if isinstance(error, Retry):
        return _after_retry(error, budget, options.backoff, jitter)
    name, message = name_of(error), message_of(error)
    if budget.failures >= budget.max_retries or not _worth_a_retry(error, options):
        return Verdict("failed", None, name, message)
    delay, flaw = _delay(options.backoff, budget.failures + 1, jitter)
    return Verdict("failed", delay, name, message + flaw)


def after_timeout(limit: float, budget: Budget, jitter: float, own: Backoff | None = UNDECLARED.backoff) -> Verdict:
    """An attempt ran longer than its `limit` seconds: one retry within the budget, however often it failed otherwise.

    `own` is the backoff that the function declared.
    """
    message = f"the task ran longer than its timeout of {limit:g} s"
    if budget.failures >= budget.max_retries or budget.timeouts + 1 >= MOST_TIMEOUTS:
        return Verdict("failed", None, "TaskTimeout", message)
    delay, flaw = _delay(own, budget.failures + 1, jitter)
    return Verdict("timeout", delay, "TaskTimeout", message + flaw)


def after_interrupt(why: Why) -> Verdict:
    """An attempt was ended early for another reason than its time."""
    if why is Why.CANCEL:
        return Verdict("cancelled", None, "TaskCancelled", "the task was cancelled while it ran")
    return STOPPED if why is Why.STOP else INTERRUPTED


def after_death(crashes: int, cause: str | None = None) -> Verdict:
    """The worker process died under an attempt, after so many `crashes` of the same task."""
    why = "" if cause is None else f" ({cause})"
    message = f"the task's worker process died under it{why}, {crashes + 1} times now"
    if crashes + 1 >= MOST_CRASHES:
        return Verdict("failed", None, "WorkerDied", message)
    return Verdict("crashed", 0.0, "WorkerDied", message)


def refused(name: str, error: BaseException) -> Verdict:
    """The stored task can't run, and no retry would change that."""
    return Verdict("failed", None, name, message_of(error))


def unreadable(broken: BaseException) -> Verdict:
    """The attempt has ended, and reading how raised `broken`."""
    return Verdict("failed", None, name_of(broken), f"how it ended can't be read: {message_of(broken)}")


def name_of(error: BaseException) -> str:
    """The name of an exception's class."""
    return storable(_NAME(type(error)), _LONGEST_NAME)


def message_of(error: BaseException) -> str:
    """The text of an exception, as far as it has one and PostgreSQL can keep it."""
    return _text_of(error)


def storable(text: str, most: int) -> str:
    """`text` as PostgreSQL can keep it: no NUL, no lone surrogates, `most` characters of its start and end."""
    text = str.__str__(text)  # a plain one: nobody packs the subclasses
    if len(text) > most:
        text = f"{text[: most // 2]}\n... {len(text) - most} characters left out ...\n{text[-(most - most // 2) :]}"
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _after_retry(error: Retry, budget: Budget, own: Backoff | None, jitter: float) -> Verdict:
    if error.in_ is None:
        delay, flaw = _delay(own, budget.failures + 1, jitter)
    else:
        delay, flaw = max(duration("in_", error.in_).total_seconds(), _SOON), ""
    return Verdict("retry", delay, "Retry", _reason_of(error) + flaw)


def _reason_of(error: Retry | Cancel) -> str:
    """What a task gave as its reason: a text, but nothing keeps it from giving an exception, or None."""
    reason: object = error.reason
    return "" if reason is None else _text_of(reason)


def _text_of(value: object) -> str:
    try:
        text = str(value)
    except Interrupted:
        raise
    except BaseException as broken:
        text = f"(its text can't be had: {name_of(broken)})"
    return storable(text, _LONGEST_MESSAGE)


def _worth_a_retry(error: BaseException, options: TaskOptions) -> bool:
    leaves = _leaves(error)
    if any(isinstance(each, options.give_up_on) for each in (error, *leaves)):
        return False
    if isinstance(error, options.retry_on) or all(isinstance(leaf, options.retry_on) for leaf in leaves):
        return True
    return not isinstance(error, Exception) and Exception in options.retry_on


def _leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, however deep; one that is no group by itself."""
    leaves: list[BaseException] = []
    rest = [error]
    while rest:
        each = rest.pop()
        if isinstance(each, BaseExceptionGroup):
            rest.extend(reversed(_INNER(each)))
        else:
            leaves.append(each)
    return leaves


def _delay(own: Backoff | None, failures: int, jitter: float) -> tuple[float, str]:
    """The seconds to wait, and what to say when the function's own backoff could not be used."""
    try:
        delay, flaw = delay_after(own, failures, jitter), ""
    except BaseException as error:
        delay = default_backoff(failures, jitter=jitter)
        flaw = f" (its own backoff failed, {name_of(error)}: {message_of(error)}; the default was used)"
    return max(delay.total_seconds(), _SOON), flaw
