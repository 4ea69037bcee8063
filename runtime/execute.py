"""Run one attempt, from its row to its end. Catches all that user code raises, raises nothing, knows no store."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from contextvars import copy_context
from typing import Any, Final, cast

import msgspec

from . import wire
from .around import enqueued, grant_time, is_new_fire, log_failures, run_on, tell, tell_blocking, tell_quietly
from .callables import Function, Functions, NotRunHere
from .codec import encode_result
from .current import Running, running_here
from .errors import InvalidTask, SerializationError, TaskTimeout
from .hooks import on_post_run, on_pre_run
from .lifecycle import DONE, Verdict, Why, after_error, after_interrupt, after_timeout, own_word, refused, unreadable
from .options import UNDECLARED, TaskOptions
from .retry import Cancel, Retry
from .task import NewTask
from .traces import formatted, frames_of

_CLOSED: Final = "The task has ended: what it adds must be added while it runs."
_OURS: Final = (__file__, run_on.__code__.co_filename)


async def run(running: Running, functions: Functions) -> wire.End | wire.Unknown:
    """Run an attempt on this event loop, a plain function on a thread; it may be cancelled whenever it awaits."""
    running_here.set(running)
    course = _Course(running)
    try:
        function, args, kwargs = course.prepare(functions)
        if is_new_fire(running, function.call):
            await enqueued(running)
        if on_pre_run.used:
            await tell(on_pre_run, running)
        if function.is_async:
            course.value = await function.call(*args, **kwargs)
        else:
            await _on_thread(course, function.call, args, kwargs)
        if running.outbox is not None and course.error is None:
            course.added = await running.outbox.hand_over(_CLOSED)
        course.encode()
    except BaseException as error:
        course.error = error
    course.judge()
    if on_post_run.used and course.function is not None:
        await tell_quietly(on_post_run, running, **course.told())
    return course.end()


def run_blocking(
    running: Running, functions: Functions, interruptible: AbstractContextManager[object], loop: asyncio.Runner
) -> wire.End | wire.Unknown:
    """Run an attempt on this thread, what of it is async on `loop`.

    Inside `interruptible` an exception may come at any time, `running.why` says why. It is entered for the function,
    then for the hooks behind it.
    """
    running_here.set(running)
    course = _Course(running)
    try:
        with interruptible:
            function, args, kwargs = course.prepare(functions)
            if is_new_fire(running, function.call):
                run_on(loop, enqueued(running))
            if on_pre_run.used:
                tell_blocking(on_pre_run, running, loop)
            course.value = function.call(*args, **kwargs)
            if function.is_async:
                course.value = run_on(loop, cast("Coroutine[Any, Any, object]", course.value))
            if running.outbox is not None:
                with running.outbox.turn:  # a thread that the task left behind may still be writing
                    course.added = run_on(loop, running.outbox.hand_over(_CLOSED))
        course.encode()
    except BaseException as error:
        course.error = error
    course.judge()
    if on_post_run.used and course.function is not None:
        grant_time(running)
        try:
            with interruptible:
                tell_blocking(on_post_run, running, loop, **course.told())
        except BaseException as error:
            log_failures(on_post_run, [error])
    return course.end()


def interrupted_early(running: Running) -> wire.End:
    """The end of an attempt that is interrupted before it has started."""
    running.over = True
    assert running.why is not None
    return _bare(running, after_interrupt(running.why))


class _Refused(Exception):
    """A task that can't run, or whose result can't be kept: `name` and `reason` are recorded, nothing is retried."""

    def __init__(self, name: str, reason: Exception) -> None:
        self.name = name
        self.reason = reason


class _Course(msgspec.Struct, eq=False):
    """What is known so far about an attempt."""

    running: Running
    function: Function | None = None
    value: object = None
    result: str | None = None
    added: list[NewTask] | None = None
    error: BaseException | None = None
    why: Why | None = None  # it was interrupted, when that was looked at
    verdict: Verdict = DONE

    def prepare(self, functions: Functions) -> tuple[Function, Sequence[object], dict[str, object]]:
        attempt = self.running.attempt
        try:
            function = functions.get(attempt.function, verified=attempt.verified)
            args, kwargs = function.decode(attempt.args, attempt.kwargs)
        except (InvalidTask, SerializationError) as error:
            name = "InvalidTask" if isinstance(error, InvalidTask) else "SerializationError"
            raise _Refused(name, error) from error
        self.function = function
        return function, args, kwargs

    def encode(self) -> None:
        if self.value is None or self.running.why is not None:
            return
        try:
            self.result = encode_result(self.value)
        except Exception as error:  # serializing runs code of the user's types
            raise _Refused("SerializationError", error) from error

    def judge(self) -> None:
        """Decide the outcome, from what the function did and from why it was interrupted."""
        self.why = self.running.why
        if self.error is None and self.why is None:
            return
        try:
            self.verdict = self._verdict()
        except BaseException as broken:  # to look at an exception runs code of the user's types
            self.verdict = unreadable(broken)

    def told(self) -> dict[str, object]:
        """What the post-run hooks are told: the value of a task that is done, the error of any other."""
        if self.verdict is DONE:
            return {"result": self.value, "error": None}
        error = self.error
        if self.why is Why.TIMEOUT:
            error = TaskTimeout("TaskTimeout", self.verdict.exception_message or "")
        if type(error) is _Refused:  # isinstance would ask the exception for its class
            error = error.reason
        return {"result": None, "error": error}

    def end(self) -> wire.End | wire.Unknown:
        """What is reported, as far as it can be read."""
        self.running.over = True
        try:
            return self._end()
        except BaseException as broken:
            self.error = None
            verdict = unreadable(broken) if self.verdict is DONE else self.verdict
            return _bare(self.running, verdict)

    def _verdict(self) -> Verdict:
        error, attempt = self.error, self.running.attempt
        if self.why is Why.TIMEOUT:
            return after_timeout(attempt.timeout or 0.0, attempt, _jitter(), self._options.backoff)
        if self.why is not None:
            return after_interrupt(self.why)
        assert error is not None
        if isinstance(error, _Refused):
            return refused(error.name, error.reason)
        self.error = error = own_word(error)
        return after_error(error, attempt, self._options, _jitter())

    def _end(self) -> wire.End | wire.Unknown:
        running, verdict = self.running, self.verdict
        if running.outbox is not None and verdict is not DONE:
            running.outbox.discard(_CLOSED)
        if isinstance(self.error, NotRunHere) and self.why is None:
            return wire.Unknown(running.attempt.no, self.error.stance)
        took = _took(running)
        context = None if running.context is None else running.context.take()
        if verdict is DONE:
            added = [added_of(task) for task in self.added] if self.added else None
            return wire.End(running.attempt.no, "done", took, self.result, context=context, added=added)
        trace = _trace(self.error)
        self.error = None  # its traceback holds the frame that holds it
        return wire.End(
            running.attempt.no,
            verdict.outcome,
            took,
            None,
            verdict.delay,
            verdict.exception_name,
            verdict.exception_message,
            trace,
            context,
        )

    @property
    def _options(self) -> TaskOptions:
        return UNDECLARED if self.function is None else self.function.options


def added_of(task: NewTask) -> wire.Added:
    """A new task as it travels to the supervisor."""
    return wire.Added(
        task.id.bytes,
        task.function,
        task.executor,
        task.args,
        task.kwargs,
        task.name,
        task.channel,
        task.key,
        task.priority,
        task.max_retries,
        task.timeout,
        None if task.run_at is None else task.run_at.timestamp(),
        None if task.expires_at is None else task.expires_at.timestamp(),
        task.unique_key,
        task.auto_remove,
        task.on_parent_failure,
        [parent.bytes for parent in task.parents],
        task.context,
        task.signature,
    )


def _bare(running: Running, verdict: Verdict) -> wire.End:
    return wire.End(
        running.attempt.no,
        verdict.outcome,
        _took(running),
        None,
        verdict.delay,
        verdict.exception_name,
        verdict.exception_message,
    )


def _took(running: Running) -> float:
    return 0.0 if running.started is None else time.monotonic() - running.started


def _jitter() -> float:
    return random.random()  # noqa: S311  # it spreads retries, nobody must not guess it


async def _on_thread(
    course: _Course, call: Callable[..., object], args: Sequence[object], kwargs: dict[str, object]
) -> None:
    """Call on a thread and wait for it, cancelled or not: the attempt isn't over while its thread goes on."""

    def target() -> None:
        # Told by hand: neither a future nor a coroutine can pass a StopIteration on.
        try:
            course.value = call(*args, **kwargs)
        except BaseException as error:
            course.error = error

    ended = asyncio.get_running_loop().run_in_executor(None, copy_context().run, target)
    while not ended.done():
        try:
            await asyncio.wait([ended])
        except asyncio.CancelledError:
            if course.running.why is None:
                raise


def _trace(error: BaseException | None) -> str | None:
    """The traceback from where the user's code begins; none for what a task asks for by raising it."""
    if error is None or isinstance(error, Cancel | Retry | _Refused):
        return None
    frames = frames_of(error)
    while frames is not None and frames.tb_frame.f_code.co_filename in _OURS:
        frames = frames.tb_next
    return formatted(type(error), error, frames)
