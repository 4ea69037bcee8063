"""Who is to blame when a worker process has to be killed, and what becomes of each attempt in it. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

import msgspec

from ..runtime.lifecycle import BLOCKED, INTERRUPTED, Verdict, after_death, after_interrupt, after_timeout
from ..runtime.stacks import Account
from ..runtime.task import Settled
from .held import Held, settled

MOST_INTERRUPTIONS = 3  # after which an attempt that may be to blame is no longer run among others


class Judgement(msgspec.Struct, frozen=True):
    """Why a process is killed. `culprits` did not end when they should have; `apart`: those that are to run alone.

    `account` is what the process said last, if it was asked. `fatal`: the process did what would have killed it anyway.
    """

    reason: str
    culprits: tuple[Held, ...] = ()
    apart: tuple[Held, ...] = ()
    account: Account | None = None
    fatal: bool = False


def judge(running: Mapping[int, Held], late: Collection[Held], account: Account | None, *, alone: bool) -> Judgement:
    """A process doesn't answer, and `late` should have ended in it. `alone`: it never runs more than one at a time.

    What is on the stack is to blame. If it still has time it is not failed for that: it runs again, alone, so that it
    can't harm others. When nobody knows who it was, all go free, and those that should have ended run alone next: so
    whoever did it is found out then. They are not the only ones that may have done it; so is what came back too often.
    """
    culprit = _culprit(running, account, alone=alone)
    place = f", at {account.place}" if account is not None and account.place else ""
    if culprit is None:
        apart = [held for held in running.values() if held in late or _interruptions(held) >= MOST_INTERRUPTIONS]
        return Judgement(f"something that is no task's blocks it{place}", (), tuple(apart), account)
    claimed = culprit.claimed
    reason = f"task {claimed.id} ({claimed.name}) blocks it{place}"
    if culprit in late:
        return Judgement(reason, (culprit,), (), account)
    return Judgement(reason, (), (culprit,), account)


def bereft(
    begun: Mapping[int, Held], running: Collection[int], judgement: Judgement | None, now: float
) -> list[Settled]:
    """Attempts that were begun when their process died; without a judgement it did so of its own accord.

    Then nobody knows which one of `running` was to blame. Those are blamed that were there most often when a worker
    died: see `is_on_last_life`, at most one of which is in a worker at a time. The others had ended, unheard.
    """
    suspects = [held for no, held in begun.items() if no in running]
    ended = [settled(held, INTERRUPTED, now) for no, held in begun.items() if no not in running]
    if judgement is not None and not judgement.fatal:
        return ended + [_sentence(held, judgement, now) for held in suspects]
    cause = None if judgement is None else judgement.reason
    most = max((held.claimed.crashes for held in suspects), default=0)
    return ended + [
        settled(held, INTERRUPTED if held.claimed.crashes < most else after_death(held.claimed.crashes, cause), now)
        for held in suspects
    ]


def _culprit(running: Mapping[int, Held], account: Account | None, *, alone: bool) -> Held | None:
    pointed_at = [] if account is None else [held for no, held in running.items() if account.points_at(no)]
    if len(pointed_at) == 1:
        return pointed_at[0]
    only = len(running) == 1 and (alone or account is not None)
    return next(iter(running.values())) if only else None


def _interruptions(held: Held) -> int:
    """How often it may have come back for what others did."""
    return held.claimed.attempt - 1 - held.claimed.failures - held.claimed.crashes


def _sentence(held: Held, judgement: Judgement, now: float) -> Settled:
    return settled(held, _verdict(held, judgement), now, _trace(held, judgement))


def _verdict(held: Held, judgement: Judgement) -> Verdict:
    if held.why is not None:
        return after_interrupt(held.why)
    if held in judgement.culprits:
        timeout = held.claimed.timeout
        assert timeout is not None
        return after_timeout(timeout, held.claimed, random.random())  # noqa: S311  # spreads retries
    return BLOCKED if held in judgement.apart else INTERRUPTED


def _trace(held: Held, judgement: Judgement) -> str | None:
    """Where it was when it should have ended."""
    if held not in judgement.culprits or judgement.account is None or held.why is not None:
        return None
    return judgement.account.traceback
