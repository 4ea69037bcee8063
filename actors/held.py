"""What a worker process holds: attempts, how they travel to it, and how they are recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from ..runtime import wire
from ..runtime.lifecycle import MOST_CRASHES, Verdict, Why
from ..runtime.task import Claimed, ContextWrite, Settled

OVERSTAY = 1.0  # seconds; no attempt should have to wait so long in a worker: see balance.AHEAD_SECONDS
_LONGEST_STAY = 60.0
_MOST_IN_FRAME = 4 * 1024 * 1024  # characters of arguments and contexts, far below what a frame may hold
_SIGNATURE = "SignatureError"
_EXPIRED = Verdict("cancelled", None, None, "it expired before it was its turn")


class Held(msgspec.Struct, eq=False, gc=False):
    """An attempt that the process has. `placed` is when it went there, `started` when it was first seen to run."""

    claimed: Claimed
    placed: float = 0.0
    started: float | None = None
    wished: float | None = None  # when somebody wanted it to end
    told: float | None = None  # when it was first heard that it was told to end, and had not
    why: Why | None = None
    context: ContextWrite | None = None  # the last that it told

    def note_context(self, value: str) -> ContextWrite:
        """The context has changed; what is to be written."""
        version = 1 if self.context is None else self.context.version + 1
        self.context = ContextWrite(self.claimed, version, value)
        return self.context

    def is_late(self, now: float, grace: float) -> bool:
        """Whether it should have ended more than `grace` seconds ago, as far as can be seen from outside."""
        claimed, started = self.claimed, self.started
        if claimed.timeout is not None and started is not None and now > started + claimed.timeout + grace:
            return True
        return self.wished is not None and now > self.wished + grace

    @property
    def flagged(self) -> bool:
        """Whether its end concerns more than itself."""
        return self.claimed.flagged or self.wished is not None


def is_on_last_life(claimed: Claimed) -> bool:
    """Whether one more death of a worker under this task ends it."""
    return claimed.crashes >= MOST_CRASHES - 1


def has_overstayed(waiting: Held, ahead: Held, now: float) -> bool:
    """Whether `waiting` has waited so long for the end of `ahead` that it should go back into line.

    That is as long as `ahead` had run when it came: what comes back, because nobody else has room for it, stays longer.
    """
    return now > waiting.placed + min(max(waiting.placed - ahead.placed, OVERSTAY), _LONGEST_STAY)


def ended(held: Held, end: wire.End, now: float) -> Settled:
    """An attempt that its worker reported as ended."""
    claimed = held.claimed
    return Settled(
        claimed.lease,
        claimed.id,
        claimed.attempt,
        end.outcome,
        end.took,
        now,
        held.flagged,
        end.delay,
        end.result,
        end.exception_name,
        end.exception_message,
        end.exception_traceback,
    )


def expired(claimed: Claimed, now: float) -> Settled:
    """An attempt that comes too late to be started."""
    return settled(Held(claimed), _EXPIRED, now)


def refused(claimed: Claimed, flaw: str, now: float) -> Settled:
    """An attempt at a task that must not run because of its signature."""
    return settled(Held(claimed), Verdict("failed", None, _SIGNATURE, flaw), now)


def settled(held: Held, verdict: Verdict, now: float, trace: str | None = None) -> Settled:
    """An attempt on which somebody else had to decide."""
    claimed = held.claimed
    return Settled(
        claimed.lease,
        claimed.id,
        claimed.attempt,
        verdict.outcome,
        now - (held.started or now),
        now,
        held.flagged,
        verdict.delay,
        None,
        verdict.exception_name,
        verdict.exception_message,
        trace,
    )


def runs(attempts: Iterable[tuple[int, Claimed]], *, verified: bool) -> Iterator[wire.Run]:
    """The frames that give a worker these attempts, by their numbers; `verified`: what is signed was checked."""
    batch: list[wire.Attempt] = []
    size = 0
    for no, claimed in attempts:
        more = len(claimed.args) + len(claimed.kwargs or "") + len(claimed.context or "") + len(claimed.parents or "")
        if batch and size + more > _MOST_IN_FRAME:
            yield wire.Run(batch)
            batch, size = [], 0
        attempt = wire.Attempt(
            no,
            claimed.id.bytes,
            claimed.attempt,
            claimed.name,
            claimed.function,
            claimed.executor,
            claimed.args,
            claimed.kwargs,
            claimed.context,
            claimed.timeout,
            claimed.failures,
            claimed.timeouts,
            claimed.max_retries,
            claimed.channel,
            claimed.priority,
            claimed.parents,
            verified and claimed.signature is not None,
        )
        batch.append(attempt)
        size += more
    if batch:
        yield wire.Run(batch)
