"""What a task is: its states, the row an enqueuer writes, the attempt a server holds, the model a reader gets. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Literal, NewType, TypeAlias
from uuid import UUID

import msgspec

Json: TypeAlias = Any  # what json.loads returns; the only Any of the public surface
ServerId = NewType("ServerId", UUID)  # one incarnation: fresh at every start, never the host name
LeaseId = NewType("LeaseId", UUID)
OnParentFailure: TypeAlias = Literal["cascade", "run", "cancel"]

DEFAULT_CHANNEL = "default"

LOCAL = "<local>"  # stands for the module in the reference of a function that travels by value

_EPOCH = datetime.fromtimestamp(0, UTC)


class TaskState(StrEnum):
    """Where a task stands. `done`, `failed` and `cancelled` are final; `stopped` waits for a retry by hand."""

    ENQUEUED = "enqueued"
    WAITING = "waiting"
    DOING = "doing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES


FINAL_STATES = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED})


class Executor(IntEnum):
    """Where a function runs; the numbers are stored."""

    ASYNC = 0  # on the event loop of an async worker
    SYNC = 1  # on the main thread of a sync worker, where it can be interrupted
    THREAD = 2  # on a thread of an async worker: short, trusted, can't be interrupted


class NewTask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One task as the enqueuer writes it: everything encoded, nothing left to decide."""

    id: UUID
    function: str
    executor: Executor
    args: str  # a JSON array
    kwargs: str | None = None  # a JSON object, None when empty
    name: str | None = None  # None: the function's own name
    channel: str = DEFAULT_CHANNEL
    key: str | None = None
    priority: int = 0
    max_retries: int = 3
    timeout: float | None = None  # seconds; None: no limit
    run_at: datetime | None = None
    expires_at: datetime | None = None
    unique_key: str | None = None
    auto_remove: bool = False
    on_parent_failure: OnParentFailure = "cascade"
    parents: tuple[UUID, ...] = ()
    context: str | None = None  # a JSON object
    signature: bytes | None = None

    @property
    def reference(self) -> str:
        """The function as people want to see it: of a local one only its name."""
        return ":".join(self.function.split(":", 2)[:2])


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One item for `add_tasks`, `chain`, `group` and `chord`: a function, its arguments, its options.

    `options` are the keyword options of `QueuedTasks.add_task` (`channel`, `priority`, `parent`, ...).
    """

    func: Callable[..., object]
    args: Sequence[object] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        func: Callable[..., object],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        _set_func(self, func)
        _set_args(self, tuple(args))
        _set_kwargs(self, dict(kwargs) if kwargs else {})
        _set_options(self, options)


# object.__setattr__ would look them up by name for each of a hundred thousand
_set_func, _set_args, _set_kwargs, _set_options = (
    vars(TaskSpec)[name].__set__ for name in ("func", "args", "kwargs", "options")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as it stands in the database at one moment.

    `attempt` counts every start (0: never started), `failures` only those that ended in an error.
    `timeout` and `execution_time` (of the last attempt) are durations, instants are aware datetimes.
    """

    id: UUID
    name: str
    function: str
    state: TaskState
    args: list[Json]
    kwargs: dict[str, Json]
    context: dict[str, Json]
    result: Json
    channel: str
    priority: int
    attempt: int
    failures: int
    max_retries: int
    timeout: timedelta | None
    auto_remove: bool
    unique_key: str | None
    parents: list[UUID]
    created_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    execution_time: timedelta | None
    server: str | None
    exception_name: str | None
    exception_message: str | None
    exception_traceback: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLog:
    """One line that a task logged; `level` is the name of the level, `exception` a formatted traceback.

    `id` grows from line to line: it is what `get_logs(after=...)` takes.
    """

    id: int
    task_id: UUID
    attempt: int
    at: datetime
    level: str
    logger: str
    message: str
    exception: str | None


class Claimed(msgspec.Struct, gc=False):
    """One attempt that a server holds, in the order of the columns of claim.sql; `lane` and `seq`: where it stood.

    `parents` are the results of its parents, a JSON array, an empty one when they are too large to come along.
    """

    lease: UUID
    lane: int
    seq: int
    id: UUID
    attempt: int
    failures: int
    timeouts: int
    crashes: int
    function: str
    name: str
    executor: int
    args: str
    kwargs: str | None
    context: str | None
    timeout: float | None
    max_retries: int
    flagged: bool
    expired: bool
    signature: bytes | None
    sealed: str | None = None  # what was signed beyond the above, with a signature only
    parents: str | None = None
    channel: str = DEFAULT_CHANNEL
    priority: int = 0

    def as_written(self) -> NewTask:
        """The row that was claimed, for one that has a signature: whatever its enqueuer decided is in it."""
        name, channel, key, priority, run_at, expires_at, unique_key, auto_remove, on_parent_failure, parents, first = (
            msgspec.json.decode(self.sealed or "[]")
        )
        return NewTask(
            id=self.id,
            function=self.function,
            executor=Executor(self.executor),
            args=self.args,
            kwargs=self.kwargs,
            name=name,
            channel=channel,
            key=key,
            priority=priority,
            max_retries=self.max_retries,
            timeout=self.timeout,
            run_at=_instant(run_at),
            expires_at=_instant(expires_at),
            unique_key=unique_key,
            auto_remove=auto_remove,
            on_parent_failure=on_parent_failure or "cascade",
            parents=tuple(UUID(parent) for parent in parents or ()),
            context=self.context if self.attempt == 1 else first,
            signature=self.signature,
        )


class Settled(msgspec.Struct, gc=False):
    """How an attempt ended, as it is recorded.

    `delay` None ends the task with `outcome` (done, failed, cancelled); otherwise another attempt follows after that
    many seconds (0: at once, ahead of the line; infinity: when somebody retries it) and `outcome` is one of failed,
    timeout, retry, interrupted, blocked, crashed, stopped. `took` in seconds; `ended` is a reading of time.monotonic().
    """

    lease: UUID
    id: UUID
    attempt: int
    outcome: str
    took: float
    ended: float
    flagged: bool
    delay: float | None = None
    result: str | None = None
    exception_name: str | None = None
    exception_message: str | None = None
    exception_traceback: str | None = None


class Stance(msgspec.Struct, frozen=True, array_like=True):
    """What a server says of a function; why, unless it knows it.

    `unknown`: it may run it, yet doesn't find it; `refused`: it must not run it, or it is no function of a task.
    """

    function: str
    kind: Literal["known", "unknown", "refused"]
    reason: str = ""


class ContextWrite(msgspec.Struct, gc=False):
    """The context of an attempt, a JSON object; the highest `version` counts."""

    claimed: Claimed
    version: int
    value: str


class LogWrite(msgspec.Struct, gc=False):
    """A line that an attempt logged; `at` is a reading of time.monotonic()."""

    claimed: Claimed
    at: float
    level: int
    logger: str
    message: str
    exception: str | None


def _instant(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)
