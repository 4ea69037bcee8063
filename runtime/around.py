"""The hooks around an attempt, in its worker: before it and after it; for a fire those of the enqueuer, too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import Any, Final, TypeVar
from uuid import UUID

from loguru import logger

from .context import context_of, replace_context, set_context
from .current import Running
from .errors import SerializationError
from .hooks import (
    HookPoint,
    HookTask,
    on_post_create,
    on_pre_create,
    refuse_or_change,
    refuse_or_change_async,
    run_all,
    run_all_sync,
)
from .lifecycle import Interrupted, message_of, name_of
from .options import SCHEDULE
from .retry import Cancel
from .task import Json
from .traces import frames_of

T = TypeVar("T")

HOOK_GRACE: Final = 5.0  # seconds for the post-run hooks of a plain function, however little of its time is left

_HOOKED: Final = "schedule.hooked"  # in the context of a fire: the hooks of the enqueuer were called


def is_new_fire(running: Running, function: Callable[..., object]) -> bool:
    """Whether a schedule has added this task and the hooks of the enqueuer are still to be called.

    Servers run none of the user's code, so that is left to the worker.
    """
    if not (on_pre_create.used or on_post_create.used):
        return False
    spec = getattr(function, SCHEDULE, None)
    if spec is None:
        return False
    context = context_of(running)
    return bool(context.get("schedule.name") == spec.name and not context.get(_HOOKED))


async def enqueued(running: Running) -> None:
    """Call the hooks of the enqueuer for a new fire. Raises Cancel when one of them refuses the task."""
    task, before = _view(running)
    try:
        refuse_or_change(task)
        await refuse_or_change_async(task)
    except Exception as error:
        raise Cancel(f"refused by a pre-create hook ({name_of(error)}: {message_of(error)})") from error
    _take_back(running, task, before)
    set_context(_HOOKED, True)
    log_failures(on_post_create, await run_all(on_post_create, task))


async def tell(point: HookPoint, running: Running, **told: object) -> None:
    """Call the hooks of `point`: what they raise is logged, what they change in the context is kept."""
    task, before = _view(running)
    log_failures(point, await run_all(point, task, **told))
    _take_back(running, task, before)


async def tell_quietly(point: HookPoint, running: Running, **told: object) -> None:
    """The same, and nothing comes out of it whatever happens."""
    try:
        await tell(point, running, **told)
    except BaseException as error:  # an interrupt, or a hook that exits: neither changes an outcome any more
        log_failures(point, [error])


def tell_blocking(point: HookPoint, running: Running, loop: asyncio.Runner, **told: object) -> None:
    """The same as `tell` on this thread, async hooks on `loop`."""
    task, before = _view(running)
    errors = run_on(loop, run_all(point, task, **told)) if point.asynchronous else run_all_sync(point, task, **told)
    log_failures(point, errors)
    _take_back(running, task, before)


def grant_time(running: Running) -> None:
    """Let the hooks behind a plain function have what is left of its time, `HOOK_GRACE` at least.

    The outcome is decided: what interrupted the function is none of theirs, and what interrupts them changes nothing.
    """
    soonest = time.monotonic() + HOOK_GRACE
    if running.why is not None:
        running.deadline = soonest
        running.why = None  # behind the line above: another thread looks whether it is late
    elif running.deadline is not None:
        running.deadline = max(running.deadline, soonest)


def run_on(loop: asyncio.Runner, coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of `coroutine`; it is over when this returns, also when an exception ends the loop's run instead."""
    work = loop.get_loop().create_task(coroutine, context=copy_context())
    try:
        return loop.run(_result_of(work))
    except BaseException:
        work.cancel()
        loop.run(_over(work))
        raise


async def _result_of(work: asyncio.Task[T]) -> T:
    return await work


async def _over(work: asyncio.Task[T]) -> None:
    await asyncio.wait([work])


def log_failures(point: HookPoint, errors: Sequence[BaseException]) -> None:
    """Log on the task what hooks have raised. What logging it raises is dropped."""
    for error in errors:
        shown = logger.opt(exception=(type(error), error, frames_of(error)))
        try:
            shown.error("A hook of {} failed; the task goes on.", point.name)
        except Interrupted:
            raise
        except BaseException:  # the application's own sinks ask the exception for its text, too
            logger.error("A hook of {} failed, with an exception that can't be shown: {}", point.name, name_of(error))


def _view(running: Running) -> tuple[HookTask, dict[str, Json]]:
    attempt = running.attempt
    context = context_of(running)
    task = HookTask(
        id=UUID(bytes=attempt.id),
        name=attempt.name,
        function=":".join(attempt.function.split(":", 2)[:2]),
        channel=attempt.channel,
        priority=attempt.priority,
        args=attempt.args,
        kwargs=attempt.kwargs,
        context=context.copy(),
    )
    return task, context.copy()


def _take_back(running: Running, task: HookTask, before: dict[str, Json]) -> None:
    if task.context == before:
        return
    try:
        replace_context(running, task.context)
    except SerializationError as error:
        logger.error("A hook's change of the context is dropped: {}", error)
