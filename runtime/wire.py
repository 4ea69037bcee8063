"""What supervisor and worker say to each other: tagged frames that know an attempt by the supervisor's number. Pure."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

MAX_FRAME = 64 * 1024 * 1024  # bytes


class Attempt(msgspec.Struct, array_like=True, gc=False):
    """An attempt to run. `no` names it in every later message; `timeout` in seconds."""

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
    on_parent_failure: str
    parents: list[bytes]
    context: str | None
    signature: bytes | None


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


class Interrupt(msgspec.Struct, tag="interrupt", array_like=True):
    """End an attempt early: `cancel` and `stop` on somebody's wish, `release` because the server goes."""

    no: int
    why: str


class Return(msgspec.Struct, tag="return", array_like=True):
    """Hand back what has not started."""


class Drain(msgspec.Struct, tag="drain", array_like=True):
    """No more work comes: finish what runs, then leave; `grace` in seconds, then interrupt it."""

    grace: float


class Ping(msgspec.Struct, tag="ping", array_like=True):
    n: int


class Answer(msgspec.Struct, tag="answer", array_like=True):
    """The answer to a Call: a JSON value, or the name and text of an error."""

    call: int
    value: str | None = None
    error: str | None = None
    text: str | None = None


ToWorker: TypeAlias = Run | Interrupt | Return | Drain | Ping | Answer


# ---- from the worker


class Ready(msgspec.Struct, tag="ready", array_like=True):
    """The application is imported and the worker takes work."""

    slots: int


class NotReady(msgspec.Struct, tag="not-ready", array_like=True):
    """The application can't be imported, or a start hook failed."""

    traceback: str


class Ended(msgspec.Struct, tag="ended", array_like=True):
    ends: list[End]


class Returned(msgspec.Struct, tag="returned", array_like=True):
    nos: list[int]


class ContextChanged(msgspec.Struct, tag="context", array_like=True):
    no: int
    value: str


class Logged(msgspec.Struct, tag="logged", array_like=True):
    lines: list[LogLine]


class Pong(msgspec.Struct, tag="pong", array_like=True):
    n: int
    memory: int  # bytes, resident


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


FromWorker: TypeAlias = Ready | NotReady | Ended | Returned | ContextChanged | Logged | Pong | Call | Record
