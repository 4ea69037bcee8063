"""What supervisor and worker say to each other: tagged frames that know an attempt by the supervisor's number. Pure."""

from __future__ import annotations

from ctypes import c_uint64
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

import msgspec

from .task import DEFAULT_CHANNEL, Executor, NewTask, OnParentFailure, Stance

MAX_FRAME = 64 * 1024 * 1024  # bytes


class Attempt(msgspec.Struct, array_like=True, gc=False):
    """An attempt to run. `no` names it in every later message; `timeout` in seconds.

    `parents`: as in Claimed. `verified`: the supervisor has checked the task's signature.
    """

    no: int
    id: bytes
    attempt: int
    name: str
    function: str
    executor: int
    args: str
    kwargs: str | None
    context: str | None
    timeout: float | None
    failures: int
    timeouts: int
    max_retries: int
    channel: str = DEFAULT_CHANNEL
    priority: int = 0
    parents: str | None = None
    verified: bool = False


class Added(msgspec.Struct, array_like=True, gc=False):
    """A task added inside a task: the fields of NewTask, in its order."""

    id: bytes
    function: str
    executor: int
    args: str
    kwargs: str | None
    name: str | None
    channel: str
    key: str | None
    priority: int
    max_retries: int
    timeout: float | None
    run_at: float | None  # seconds since the epoch
    expires_at: float | None
    unique_key: str | None
    auto_remove: bool
    on_parent_failure: OnParentFailure
    parents: list[bytes]
    context: str | None
    signature: bytes | None


def unpack(added: Added) -> NewTask:
    """The task as it is written to the store."""
    return NewTask(
        id=UUID(bytes=added.id),
        function=added.function,
        executor=Executor(added.executor),
        args=added.args,
        kwargs=added.kwargs,
        name=added.name,
        channel=added.channel,
        key=added.key,
        priority=added.priority,
        max_retries=added.max_retries,
        timeout=added.timeout,
        run_at=_instant(added.run_at),
        expires_at=_instant(added.expires_at),
        unique_key=added.unique_key,
        auto_remove=added.auto_remove,
        on_parent_failure=added.on_parent_failure,
        parents=tuple(UUID(bytes=parent) for parent in added.parents),
        context=added.context,
        signature=added.signature,
    )


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class LogLine(msgspec.Struct, array_like=True, gc=False):
    """A line logged inside an attempt; `ago` in seconds before the frame was sent."""

    no: int
    ago: float
    level: int
    logger: str
    message: str
    exception: str | None


class End(msgspec.Struct, array_like=True, gc=False):
    """How an attempt ended: `outcome` and `delay` as the store's settle takes them, `took` in seconds."""

    no: int
    outcome: str
    took: float
    result: str | None = None
    delay: float | None = None
    exception_name: str | None = None
    exception_message: str | None = None
    exception_traceback: str | None = None
    context: str | None = None
    added: list[Added] | None = None


# ---- to the worker


class Run(msgspec.Struct, tag="run", array_like=True):
    attempts: list[Attempt]


class Activate(msgspec.Struct, tag="activate", array_like=True):
    """Become active: run the start hooks, then answer Active. A standby stays at Ready until it gets this."""


class Interrupt(msgspec.Struct, tag="interrupt", array_like=True):
    """End an attempt early: `cancel` and `stop` on somebody's wish.

    One that has not started ends at once. The worker answers with its End like any other (outcome `cancelled`, or
    `stopped` with an infinite delay); an attempt that ended meanwhile is not interrupted.
    """

    no: int
    why: str


class HandBack(msgspec.Struct, tag="hand_back", array_like=True):
    """Hand back what has not started (Returned); what runs goes on, and more may come later."""


class Drain(msgspec.Struct, tag="drain", array_like=True):
    """No more work comes: hand back what has not started (Returned), finish what runs, run the stop hooks, leave.

    After `grace` seconds what still runs is interrupted and ends as `interrupted`, delay 0.
    """

    grace: float


class Ping(msgspec.Struct, tag="ping", array_like=True):
    n: int


class Answer(msgspec.Struct, tag="answer", array_like=True):
    """The answer to a Call: a JSON value, or the name and text of an error."""

    call: int
    value: str | None = None
    error: str | None = None
    text: str | None = None


class Knows(msgspec.Struct, tag="knows", array_like=True):
    """Which of these functions can be run here? Answered with Stances."""

    functions: list[str]


ToWorker: TypeAlias = Run | Activate | Interrupt | HandBack | Drain | Ping | Answer | Knows


# ---- from the worker


class Schedule(msgspec.Struct, array_like=True, frozen=True):
    """Something to run by the clock; `task` is what a fire adds, but for its id."""

    name: str
    cron: str
    timezone: str
    catch_up: bool
    task: Added


class Ready(msgspec.Struct, tag="ready", array_like=True):
    """The application is imported; an async worker says what it declares to run by the clock."""

    schedules: list[Schedule] = []


class Active(msgspec.Struct, tag="active", array_like=True):
    """The start hooks have run and the worker takes work: so many attempts at once."""

    slots: int


class NotReady(msgspec.Struct, tag="not-ready", array_like=True):
    """The application can't be imported, or a start hook failed. The worker exits after it."""

    traceback: str


class Ended(msgspec.Struct, tag="ended", array_like=True):
    ends: list[End]


class Unknown(msgspec.Struct, tag="unknown", array_like=True):
    """An attempt that did not start, because its function can't be run here."""

    no: int
    stance: Stance


class Stances(msgspec.Struct, tag="stances", array_like=True):
    stances: list[Stance]


class Returned(msgspec.Struct, tag="returned", array_like=True):
    """Attempts that did not start and never will here."""

    nos: list[int]


class Bye(msgspec.Struct, tag="bye", array_like=True):
    """The worker is drained and exits; nothing follows."""


class ContextChanged(msgspec.Struct, tag="context", array_like=True):
    """The whole context of an attempt, as JSON; later ones replace earlier ones."""

    no: int
    value: str


class Commit(msgspec.Struct, tag="commit", array_like=True):
    """As ContextChanged, None if nothing changed since; answered like a Call once what was told last is durable."""

    call: int
    no: int
    value: str | None


class Logged(msgspec.Struct, tag="logged", array_like=True):
    lines: list[LogLine]


class Pong(msgspec.Struct, tag="pong", array_like=True):
    """Answered by the loop that runs user code (async), or by the I/O thread (sync).

    `late`: attempts that were told to end, by their deadline or by an Interrupt, and have not ended.
    """

    n: int
    late: list[int]


class Call(msgspec.Struct, tag="call", array_like=True):
    """Something that only the supervisor can do, because the worker has no connection; `payload` is JSON."""

    call: int
    verb: str
    payload: str
    added: list[Added] | None = None


class Record(msgspec.Struct, tag="record", array_like=True):
    """A line for the server's own log."""

    level: int
    logger: str
    message: str
    exception: str | None


FromWorker: TypeAlias = (
    Ready
    | Active
    | NotReady
    | Ended
    | Unknown
    | Stances
    | Returned
    | Bye
    | ContextChanged
    | Commit
    | Logged
    | Pong
    | Call
    | Record
)


class WorkerArgument(msgspec.Struct, frozen=True):
    """What a worker process is started with."""

    kind: str  # "async" or "sync"
    slots: int
    app: str | None  # module:attribute
    app_dir: str | None  # put first on sys.path
    lifespan: bool  # run the application's own lifespan around the work
    allowed_modules: tuple[str, ...]
    only_decorated: bool
    schema: str
    signs: bool = False  # the supervisor signs and checks tasks, so that local functions can be tasks
    begun: c_uint64 | None = None  # shared memory, in which a sync worker notes the number of what it begins
