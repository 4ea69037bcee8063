"""Say in a sentence why a task runs or doesn't, and what to do. Pure: what there is to know is in the inquiry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...runtime.store.inquiry import MOST_AHEAD, Inquiry, Parent, Place, Run, Taker
from ...runtime.task import Json, Task, TaskState
from ..words import ago, plural, span

_CURES = {
    "InvalidTask": "Correct the function's name, or allow its module with QUEUE_ALLOWED_MODULES; "
    "then `queued-tasks retry {id}`.",
    "SignatureError": "Give the enqueuer and the servers the same QUEUE_SECRET_KEY; then add the task anew.",
    "TaskTimeout": "Give it a longer timeout, or make it faster; then `queued-tasks retry {id}`.",
    "WorkerDied": "It kills its worker, mostly by its memory: see the server's log; then `queued-tasks retry {id}`.",
}
_RETRYING = {"failed": "failed", "timeout": "timed out", "retry": "asked for it"}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: a word for programs, a sentence and a cure (empty when there is nothing to do) for people, and the facts."""

    word: str
    sentence: str
    cure: str = ""
    facts: dict[str, Json] = field(default_factory=dict)


def reason(seen: Inquiry) -> Reason:
    """The first thing that keeps the task from running."""
    match seen.task.state:
        case TaskState.DONE:
            return _done(seen.task)
        case TaskState.FAILED:
            return _failed(seen)
        case TaskState.CANCELLED:
            return _cancelled(seen)
        case TaskState.STOPPED:
            since = span(seen.stopped_ago or 0.0)
            return Reason(
                "stopped",
                f"It was stopped on purpose {since} ago, and waits for somebody to retry it.",
                f"`queued-tasks tasks retry {seen.task.id}` lets it go on.",
            )
        case TaskState.DOING:
            return _running(seen)
        case TaskState.WAITING:
            return _waiting(seen)
        case TaskState.ENQUEUED:
            return next(found for check in _CHECKS if (found := check(seen)) is not None)


# ---- has ended, or runs


def _done(task: Task) -> Reason:
    assert task.ended_at is not None
    took = f", and took {span(task.execution_time.total_seconds())}" if task.execution_time is not None else ""
    where = f" on {task.server}" if task.server else ""
    return Reason("done", f"It has run: it ended {ago(task.ended_at)}{where}{took}.", "", {"ended_at": task.ended_at})


def _failed(seen: Inquiry) -> Reason:
    task = seen.task
    assert task.ended_at is not None
    name = task.exception_name or ""
    cure = _CURES.get(name, "See `queued-tasks tasks show {id}`; after a correction `queued-tasks retry {id}`.")
    attempts = f" after {plural(task.attempt, 'attempt')}" if task.attempt else ""
    return Reason(
        "failed",
        f"It failed {ago(task.ended_at)}{attempts}: {_first_line(task)}",
        _retry_parent(seen) or cure.format(id=task.id),
        {"ended_at": task.ended_at, "exception_name": task.exception_name},
    )


def _cancelled(seen: Inquiry) -> Reason:
    task = seen.task
    assert task.ended_at is not None
    because = f": {task.exception_message}" if task.exception_message else ""
    return Reason(
        "cancelled",
        f"It was cancelled {ago(task.ended_at)}{because}{'' if because.endswith('.') else '.'}",
        _retry_parent(seen) or f"`queued-tasks retry {task.id}` runs a clone of it.",
        {"ended_at": task.ended_at, "message": task.exception_message},
    )


def _retry_parent(seen: Inquiry) -> str | None:
    """The cure for what never ran because a parent went bad."""
    if seen.bad_parent is None or seen.task.attempt:
        return None
    return f"`queued-tasks retry {seen.bad_parent} --subtree` runs that parent again, and this one after it."


def _running(seen: Inquiry) -> Reason:
    run = seen.run
    if run is None or run.server is None or run.server.state == "lost":
        return _orphaned(seen, run)
    server = run.server
    facts: dict[str, Json] = {"server": server.name, "runs_for": run.runs_for, "beat_ago": server.silent_for}
    where = f"It runs: on {server.name} for {span(run.runs_for)}, attempt {seen.task.attempt}"
    if run.wish is not None:
        verb = "cancel" if run.wish == "cancel" else "stop"
        asked = span(run.wished_ago or 0.0)
        return Reason(
            "interrupting", f"{where}; somebody wanted to {verb} it {asked} ago, it has not ended yet.", "", facts
        )
    said = f"It last logged {span(run.said_ago)} ago" if run.said_ago is not None else "It has logged nothing"
    limit = f", and may take {span(seen.task.timeout.total_seconds())}" if seen.task.timeout is not None else ""
    return Reason(
        "running",
        f"{where}{limit}. {said}; its server's last beat was {span(server.silent_for)} ago.",
        f"`queued-tasks tasks logs --follow {seen.task.id}` shows what it does.",
        facts,
    )


def _orphaned(seen: Inquiry, run: Run | None) -> Reason:
    if run is None or run.server is None:
        silence = "is not there any more"
        facts: dict[str, Json] = {"server": seen.task.server, "beat_ago": None}
    else:
        silence = f"has been silent for {span(run.server.silent_for)}"
        facts = {"server": run.server.name, "beat_ago": run.server.silent_for}
    alive = any(taker.state != "lost" for taker in seen.takers)
    cure = "Another server takes it back within seconds." if alive else _START + " It takes the task back."
    return Reason("server_lost", f"It ran on {facts['server'] or 'a server'}, which {silence}.", cure, facts)


def _waiting(seen: Inquiry) -> Reason:
    if not seen.open_parents:
        return Reason(
            "parents_ended",
            "All its parents have ended, but nobody has let it go yet.",
            "Any server does within 30 s." if _claiming(seen) else _START,
        )
    total, named = len(seen.task.parents), _listed([_parent(parent) for parent in seen.parents], seen.open_parents)
    first = seen.parents[0]
    return Reason(
        "waiting",
        f"It waits for {seen.open_parents} of its {plural(total, 'parent')}: {named}."
        if total > 1
        else f"It waits for its parent: {named}.",
        f"`queued-tasks tasks retry {first.id}` lets the stopped parent go on."
        if first.state == "stopped"
        else f"`queued-tasks why {first.id}` says what that one waits for.",
        {"parents": [{"id": parent.id, "name": parent.name, "state": parent.state} for parent in seen.parents]},
    )


# ---- is enqueued: checks, in the order in which servers decide


def _expired(seen: Inquiry) -> Reason | None:
    if not seen.expired:
        return None
    return Reason(
        "expired",
        "It was to start before a time that is over (`expires_at`): it is cancelled when its turn comes.",
        "Add it anew, with a later `expires_at` or none.",
    )


def _not_due(seen: Inquiry) -> Reason | None:
    task = seen.task
    if seen.place is not Place.DELAYED:
        return None
    facts: dict[str, Json] = {"run_at": task.run_at, "attempt": task.attempt, "last_outcome": seen.last_outcome}
    if seen.due_in is None:
        return Reason("never_due", "Its time to run is infinity: it will never be due.", _ADD_ANEW, facts)
    if seen.due_in <= 0:
        return None
    if seen.last_outcome in _RETRYING:
        what = _RETRYING[seen.last_outcome]
        left = f"{task.failures} of {task.max_retries + 1} tries used" if seen.last_outcome != "retry" else ""
        last = f": {_first_line(task)}" if task.exception_name else "."
        return Reason(
            "retry_later",
            f"It is tried again in {span(seen.due_in)}: attempt {task.attempt} {what} "
            f"{span(seen.last_ended_ago or 0.0)} ago{f' ({left})' if left else ''}{last}",
            f"`queued-tasks tasks show {task.id}` shows the traceback.",
            facts,
        )
    return Reason("not_due", f"It is not due yet: it may run in {span(seen.due_in)}.", "", facts)


def _paused(seen: Inquiry) -> Reason | None:
    gate = seen.limits.gate
    if not gate.paused and gate.cap != 0:
        return None
    return Reason(
        "paused",
        f"Its channel {gate.channel} is paused.",
        f"`queued-tasks channels resume {gate.channel}` lets its tasks start.",
        {"channel": gate.channel},
    )


def _no_server(seen: Inquiry) -> Reason | None:
    if any(taker.state != "lost" for taker in seen.takers):
        return None
    lost = [f"{taker.name} for {span(taker.silent_for)}" for taker in seen.takers]
    silent = f" Silent are: {', '.join(lost)}." if lost else ""
    return Reason("no_server", f"No server is running.{silent}", _START)


def _none_claims(seen: Inquiry) -> Reason | None:
    if _claiming(seen):
        return None
    there = [taker for taker in seen.takers if taker.state != "lost"]
    states = _listed([f"{taker.name} is {taker.state}" for taker in there], len(there))
    facts: dict[str, Json] = {"servers": {taker.name: taker.state for taker in there}}
    blocked = next((taker for taker in there if taker.error and taker.state in ("starting", "blocked")), None)
    if blocked is not None and blocked.error:
        said = blocked.error.strip().splitlines()[-1]
        cure = f"Its workers can't start: {said}. `queued-tasks servers` shows all of it; correct that."
    elif drained := next((taker for taker in there if taker.state in ("drained", "draining")), None):
        cure = f"`queued-tasks servers resume {drained.name}` lets it take tasks, or start another server."
    else:
        cure = "They take tasks once their workers are up."
    return Reason("none_claims", f"No server takes tasks: {states}.", cure, facts)


def _channel_not_taken(seen: Inquiry) -> Reason | None:
    if any(_takes(taker, seen.task.channel) for taker in _claiming(seen)):
        return None
    channel = seen.task.channel
    return Reason(
        "channel_not_taken",
        f"No server that runs takes the channel {channel}.",
        f"Start one that does: `queued-tasks start --channels {channel}`.",
        {"channel": channel},
    )


def _function_not_known(seen: Inquiry) -> Reason | None:
    if _able(seen):
        return None
    because = (seen.declined_because or "").removesuffix(".")
    return Reason(
        "function_not_known",
        f"No server that runs can run its function {seen.task.function}: {because}.",
        "Start a server of a version that can; after correcting an import or a setting, start the servers again.",
        {"function": seen.task.function, "because": because},
    )


def _channel_full(seen: Inquiry) -> Reason | None:
    limits, gate = seen.limits, seen.limits.gate
    facts: dict[str, Json] = {"channel": gate.channel, "limits": gate.limits, "running": limits.running}
    if gate.cap is not None and gate.per_server and all(taker.id in limits.full_servers for taker in _able(seen)):
        full = f"Its channel {gate.channel} is full on every server: {gate.cap} of its tasks may run on each."
    elif gate.cap is not None and not gate.per_server and limits.running >= gate.cap:
        full = f"Its channel {gate.channel} is full: {limits.running} of its tasks run, {gate.cap} may."
    else:
        return None
    return Reason("channel_full", f"{full} {_ahead(seen)}", _raise_limit(seen), facts)


def _key_full(seen: Inquiry) -> Reason | None:
    limits, gate = seen.limits, seen.limits.gate
    if gate.key_cap is None or not seen.key or limits.running_with_key < gate.key_cap:
        return None
    return Reason(
        "key_full",
        f"In its channel {gate.channel} as many tasks with its key {seen.key} run as may at once: {gate.key_cap}.",
        _raise_limit(seen),
        {"channel": gate.channel, "key": seen.key, "running": limits.running_with_key},
    )


def _rate_used_up(seen: Inquiry) -> Reason | None:
    limits, gate = seen.limits, seen.limits.gate
    if gate.rate is None or limits.rate_in <= 0:
        return None
    return Reason(
        "rate",
        f"Its channel {gate.channel} has used up its rate of {gate.rate}: the next task starts in "
        f"{span(limits.rate_in)}. {_ahead(seen)}",
        _raise_limit(seen),
        {"channel": gate.channel, "rate": str(gate.rate), "next_in": limits.rate_in},
    )


def _no_workers(seen: Inquiry) -> Reason | None:
    if any(taker.workers for taker in _able(seen)):
        return None
    kind = "def functions (sync)" if seen.sync else "async def functions"
    which = " that can run it" if len(_able(seen)) < len(_claiming(seen)) else ""
    return Reason(
        "no_workers",
        f"No server{which} has a worker for {kind} yet.",
        "They are started when there is a task for them; if that lasts, see the servers' logs.",
    )


def _all_busy(seen: Inquiry) -> Reason | None:
    takers = _able(seen)
    slots, busy = sum(taker.slots for taker in takers), sum(taker.busy for taker in takers)
    if busy < slots:
        return None
    kind = "for def functions" if seen.sync else "for async def functions"
    where = " on servers that can run it" if len(takers) < len(_claiming(seen)) else ""
    return Reason(
        "all_busy",
        f"All {plural(slots, 'slot')} {kind} are busy{where}. {_ahead(seen)}",
        "Add workers with `queued-tasks servers scale NAME --workers N`, or start another server.",
        {"slots": slots, "busy": busy, "ahead": seen.ahead},
    )


def _nowhere(seen: Inquiry) -> Reason | None:
    if seen.place is not Place.NONE:
        return None
    return Reason("nowhere", "It stands in no line: somebody has changed the tables by hand.", _ADD_ANEW)


def _soon(seen: Inquiry) -> Reason:
    if seen.place is not Place.LINE:
        return Reason("soon", "It is due: a server is about to put it into its line.")
    return Reason(
        "soon",
        f"Nothing is in its way. {_ahead(seen)}",
        "Ask again in a moment; if it still stands there, `queued-tasks doctor` looks for the cause.",
        {"ahead": seen.ahead},
    )


_CHECKS: Sequence[Callable[[Inquiry], Reason | None]] = (
    _nowhere,
    _expired,
    _not_due,
    _paused,
    _no_server,
    _none_claims,
    _channel_not_taken,
    _function_not_known,
    _channel_full,
    _key_full,
    _rate_used_up,
    _no_workers,
    _all_busy,
    _soon,
)

_START = "Start a server: `queued-tasks start --app main:app`."
_ADD_ANEW = "Cancel it, and add it anew."


def _claiming(seen: Inquiry) -> list[Taker]:
    return [taker for taker in seen.takers if taker.state == "running"]


def _able(seen: Inquiry) -> list[Taker]:
    """Those that take its channel, and don't decline its function."""
    return [taker for taker in _claiming(seen) if _takes(taker, seen.task.channel) and taker.id not in seen.declined_by]


def _takes(taker: Taker, channel: str) -> bool:
    return taker.intake.takes(channel)


def _raise_limit(seen: Inquiry) -> str:
    channel = seen.limits.gate.channel
    return f"Wait, or raise the limit (now {seen.limits.gate.limits}) with `queued-tasks channels set {channel} ...`."


def _ahead(seen: Inquiry) -> str:
    if not seen.ahead:
        return "It is the next in its line."
    count = f"{MOST_AHEAD:,} or more tasks" if seen.ahead >= MOST_AHEAD else plural(seen.ahead, "task")
    return f"{count} of its line {'is' if seen.ahead == 1 else 'are'} ahead of it."


def _parent(parent: Parent) -> str:
    return f"{parent.name} ({parent.id}) is {parent.state}"


def _listed(some: Sequence[str], total: int) -> str:
    more = total - len(some)
    return ", ".join(some) + (f" and {more:,} more" if more else "")


def _first_line(task: Task) -> str:
    message = (task.exception_message or "").strip().partition("\n")[0]
    text = ": ".join(part for part in (task.exception_name, message) if part)
    return text if text.endswith((".", "!", "?")) else f"{text}."
