"""What a worker process holds, and how each of these attempts is accounted for when it ends, or its process does."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator

import msgspec

from ..runtime import wire
from ..runtime.lifecycle import INTERRUPTED, MOST_CRASHES, Verdict, Why, after_death, after_interrupt, after_timeout
from ..runtime.task import Claimed, ContextWrite, Settled

_MOST_IN_FRAME = 4 * 1024 * 1024  # characters of arguments and contexts, far below what a frame may hold
_SIGNATURE = "SignatureError"
_EXPIRED = Verdict("cancelled", None, None, "it expired before it was its turn")


class Held(msgspec.Struct, eq=False):
    """An attempt that the process has. `started` is when it was first seen among those that run."""

    claimed: Claimed
    started: float | None = None
    wished: float | None = None  # when somebody wanted it to end
    why: Why | None = None
    context: ContextWrite | None = None  # the last that it told

    def note_context(self, value: str) -> ContextWrite:
        """The context has changed; what is to be written."""
        version = 1 if self.context is None else self.context.version + 1
        self.context = ContextWrite(self.claimed, version, value)
        return self.context

    @property
    def flagged(self) -> bool:
        """Whether its end concerns more than itself."""
        return self.claimed.flagged or self.wished is not None


def is_on_last_life(claimed: Claimed) -> bool:
    """Whether one more death of a worker under this task ends it."""
    return claimed.crashes >= MOST_CRASHES - 1


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
    return _settled(Held(claimed), _EXPIRED, now)


def refused(claimed: Claimed, flaw: str, now: float) -> Settled:
    """An attempt at a task that must not run because of its signature."""
    return _settled(Held(claimed), Verdict("failed", None, _SIGNATURE, flaw), now)


def bereft(running: Collection[Held], culprits: Collection[Held], killed: bool, now: float) -> list[Settled]:
    """Attempts that were running when their process died. `culprits`: those for which it was killed; `killed`: it was
    killed, for them or for none of these.

    After a death of its own accord nobody knows which one was to blame. Those are blamed that were there most often
    when a worker died: see `is_on_last_life`, at most one of which is in a worker at a time.
    """
    most = max((held.claimed.crashes for held in running), default=0)

    def verdict(held: Held) -> Verdict:
        if held in culprits:
            return _verdict_on_culprit(held)
        if killed or held.claimed.crashes < most:
            return INTERRUPTED
        return after_death(held.claimed.crashes)

    return [_settled(held, verdict(held), now) for held in running]


def runs(attempts: Iterable[tuple[int, Claimed]], *, verified: bool) -> Iterator[wire.Run]:
    """The frames that give a worker these attempts, by their numbers; `verified`: what is signed was checked."""
    batch: list[wire.Attempt] = []
    size = 0
    for no, claimed in attempts:
        more = len(claimed.args) + len(claimed.kwargs or "") + len(claimed.context or "") + len(claimed.parents or "")
        if batch and size + more > _MOST_IN_FRAME:
            yield wire.Run(batch)
            batch, size = [], 0
        batch.append(_attempt(no, claimed, verified and claimed.signature is not None))
        size += more
    if batch:
        yield wire.Run(batch)


def _verdict_on_culprit(held: Held) -> Verdict:
    """What becomes of an attempt that did not end when it should have, and had to be killed with its process."""
    if held.why is not None:
        return after_interrupt(held.why)
    assert held.claimed.timeout is not None
    return after_timeout(held.claimed.timeout, held.claimed, random.random())  # noqa: S311  # spreads retries


def _settled(held: Held, verdict: Verdict, now: float) -> Settled:
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
        None,
    )


def _attempt(no: int, claimed: Claimed, verified: bool) -> wire.Attempt:
    return wire.Attempt(
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
        verified,
    )
