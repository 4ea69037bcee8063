"""What a user's code does around tasks: the registries, and how each kind of hook is called."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, TypeAlias, TypeVar, cast, overload
from uuid import UUID

from loguru import logger

from .errors import InvalidTask
from .task import Json, NewTask
from .traces import formatted

Hook: TypeAlias = Callable[..., object]
H = TypeVar("H", bound=Hook)


class HookTask:
    """The task that hooks are given. `context` may be changed: before the task is written, that is what is stored."""

    __slots__ = ("_args", "_kwargs", "channel", "context", "function", "id", "name", "priority")

    def __init__(
        self,
        *,
        id: UUID,
        name: str,
        function: str,
        channel: str,
        priority: int,
        args: str,
        kwargs: str | None,
        context: dict[str, Json],
    ) -> None:
        self.id = id
        self.name = name
        self.function = function
        self.channel = channel
        self.priority = priority
        self.context = context
        self._args = args
        self._kwargs = kwargs

    @property
    def args(self) -> list[Json]:
        """The positional arguments as they are stored; a new list each time."""
        return cast("list[Json]", json.loads(self._args))

    @property
    def kwargs(self) -> dict[str, Json]:
        """The keyword arguments as they are stored; a new dictionary each time."""
        return {} if self._kwargs is None else cast("dict[str, Json]", json.loads(self._kwargs))

    @classmethod
    def of(cls, task: NewTask) -> HookTask:
        """The view of a task that is about to be written."""
        return cls(
            id=task.id,
            name=task.name or task.function.partition(":")[2],
            function=task.reference,
            channel=task.channel,
            priority=task.priority,
            args=task.args,
            kwargs=task.kwargs,
            context={} if task.context is None else json.loads(task.context),
        )


class HookPoint:
    """One decorator and the functions that it has collected, in the order of their registration; `used` if any."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sync: list[Hook] = []
        self.asynchronous: list[Hook] = []
        self.used = False

    @overload
    def __call__(self, hook: H, /) -> H: ...

    @overload
    def __call__(self, hook: None = None, /) -> Callable[[H], H]: ...

    def __call__(self, hook: H | None = None, /) -> H | Callable[[H], H]:
        """Register a function, sync or async, once; it stays as it is.

        Raises:
            InvalidTask: it is not callable.
        """
        return self._add if hook is None else self._add(hook)

    def __bool__(self) -> bool:
        return self.used

    def remove(self, hook: Hook) -> None:
        """Forget a function; one that was never registered is none of our business."""
        for hooks in (self.sync, self.asynchronous):
            if hook in hooks:
                hooks.remove(hook)
        self.used = bool(self.sync or self.asynchronous)

    def _add(self, hook: H) -> H:
        if not callable(hook):
            raise InvalidTask(f"@{self.name} is for functions, not for {hook!r:.60}: put it on a def or an async def")
        hooks = self.asynchronous if inspect.iscoroutinefunction(hook) else self.sync
        if hook not in hooks:
            hooks.append(hook)
        self.used = True
        return hook


on_pre_create = HookPoint("on_pre_create")
on_post_create = HookPoint("on_post_create")
on_pre_run = HookPoint("on_pre_run")
on_post_run = HookPoint("on_post_run")
on_worker_start = HookPoint("on_worker_start")
on_worker_stop = HookPoint("on_worker_stop")

LONGEST: Final = 10.0  # seconds that an async hook around a creation may take: what else is added waits for it
POST_CREATE_FAILED: Final = "A hook of on_post_create failed; the task goes on."

_state = SimpleNamespace()


def worker_state() -> Any:
    """The namespace of this process, for what `on_worker_start` opens and tasks use: a pool, an HTTP client."""
    return _state


def refuse_or_change(task: HookTask) -> None:
    """Call the sync pre-create hooks; what one of them raises goes through and refuses the task."""
    for hook in on_pre_create.sync:
        hook(task)


async def refuse_or_change_async(task: HookTask) -> None:
    """Call the async pre-create hooks; what one of them raises goes through and refuses the task.

    Raises:
        InvalidTask: one of them takes too long.
    """
    for hook in on_pre_create.asynchronous:
        try:
            async with asyncio.timeout(LONGEST) as limit:
                await cast("Awaitable[object]", hook(task))
        except TimeoutError:
            if not limit.expired():
                raise
            raise InvalidTask(
                f"{getattr(hook, '__qualname__', hook)}, a hook of on_pre_create, has not answered within {LONGEST:g} s"
                ", so the task is not added: give what it waits for a shorter timeout."
            ) from None


async def created(tasks: Sequence[HookTask]) -> list[tuple[HookTask, str]]:
    """Call the post-create hooks for tasks that were written; what they raise is logged, and returned as text.

    One that takes too long has failed, and those behind it are not called for this task.
    """
    failures: list[tuple[HookTask, str]] = []
    for task in tasks:
        for error in await _run_in_time(on_post_create, task):
            # not as the exception itself: the default log of loguru shows the values of variables, which may be secrets
            trace = formatted(type(error), error, error.__traceback__) or ""
            failures.append((task, trace))
            logger.error("Task {} ({}): {}\n{}", task.id, task.name, POST_CREATE_FAILED, trace)
    return failures


async def run_all(point: HookPoint, *args: object, **kwargs: object) -> list[Exception]:
    """Call every hook of `point`, sync ones first; whatever they raise is returned, never raised."""
    errors: list[Exception] = []
    for call in [partial(hook, *args, **kwargs) for hook in (*point.sync, *point.asynchronous)]:
        try:
            answer = call()
            if inspect.isawaitable(answer):
                await answer
        except Exception as error:
            errors.append(error)
    return errors


async def _run_in_time(point: HookPoint, task: HookTask) -> list[Exception]:
    try:
        async with asyncio.timeout(LONGEST):
            return await run_all(point, task)
    except TimeoutError:  # those of the hooks themselves are among what is returned
        return [TimeoutError(f"a hook of {point.name} has not answered within {LONGEST:g} s")]


def run_all_sync(point: HookPoint, *args: object, **kwargs: object) -> list[Exception]:
    """As `run_all`, for the sync hooks alone: where there is no event loop."""
    errors: list[Exception] = []
    for hook in point.sync:
        try:
            hook(*args, **kwargs)
        except Exception as error:
            errors.append(error)
    return errors
