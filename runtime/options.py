"""What a function declares about its tasks with @task, and where it runs."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import FunctionType
from typing import Final, Literal, TypeAlias, TypeVar, overload

from .errors import InvalidTask
from .retry import Backoff, Seconds, duration
from .task import Executor

F = TypeVar("F", bound=Callable[..., object])
Exceptions: TypeAlias = type[Exception] | tuple[type[Exception], ...]

SCHEDULE: Final = "__queued_schedule__"  # the attribute of a function that runs by the clock

_OPTIONS = "__queued_task__"
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What a function declares with @task; None: not declared, so the settings decide."""

    name: str | None = None
    channel: str | None = None
    priority: int | None = None
    max_retries: int | None = None
    timeout: timedelta | None = None
    backoff: Backoff | None = None
    retry_on: tuple[type[Exception], ...] = (Exception,)
    give_up_on: tuple[type[Exception], ...] = ()
    unique: bool | str | None = None
    auto_remove: bool | None = None
    executor: Literal["thread"] | None = None


def options_of(func: Callable[..., object]) -> TaskOptions:
    """What `func` declared with @task; all defaults when it declared nothing."""
    options = getattr(func, _OPTIONS, None)
    return options if isinstance(options, TaskOptions) else UNDECLARED


@overload
def task(func: F, /) -> F: ...


@overload
def task(
    *,
    name: str | None = None,
    channel: str | None = None,
    priority: int | None = None,
    max_retries: int | None = None,
    timeout: Seconds | None = None,
    backoff: Backoff | None = None,
    retry_on: Exceptions = (Exception,),
    give_up_on: Exceptions = (),
    unique: bool | str | None = None,
    auto_remove: bool | None = None,
    executor: Literal["thread"] | None = None,
) -> Callable[[F], F]: ...


def task(
    func: F | None = None,
    /,
    *,
    name: str | None = None,
    channel: str | None = None,
    priority: int | None = None,
    max_retries: int | None = None,
    timeout: Seconds | None = None,
    backoff: Backoff | None = None,
    retry_on: Exceptions = (Exception,),
    give_up_on: Exceptions = (),
    unique: bool | str | None = None,
    auto_remove: bool | None = None,
    executor: Literal["thread"] | None = None,
) -> F | Callable[[F], F]:
    """Declare the defaults of a function's tasks; the function itself is returned as it is.

    `priority` is higher first; `timeout` and `backoff` are seconds or timedeltas, `backoff` may be a function of the
    number of failures. `retry_on` and `give_up_on` say which exceptions are worth a retry. `unique=True` means one
    unfinished task per name and arguments, a text one per text. `executor="thread"` is for short `def` functions.

    Raises:
        InvalidTask: an option can't be, named in the text; or it stands on no function.
    """
    options = TaskOptions(
        name=as_text("name", name, 200),
        channel=as_text("channel", channel, 100),
        priority=as_whole("priority", priority, -32_768, 32_767),
        max_retries=as_whole("max_retries", max_retries, 0, 32_767),
        timeout=as_timeout(timeout),
        backoff=backoff if backoff is None or callable(backoff) else duration("backoff", backoff),
        retry_on=_exceptions("retry_on", retry_on),
        give_up_on=_exceptions("give_up_on", give_up_on),
        unique=unique if unique is None or isinstance(unique, bool) else as_text("unique", unique, 500),
        auto_remove=as_flag("auto_remove", auto_remove),
        executor=executor,
    )
    declare = functools.partial(_declare, options=options)
    return declare if func is None else declare(func)


def executor_of(func: Callable[..., object]) -> Executor:
    """Where `func` runs: async when it, or what it wraps, is `async def`; else on a main thread unless declared."""
    if is_async(func):
        return Executor.ASYNC
    return Executor.THREAD if options_of(func).executor == "thread" else Executor.SYNC


def is_async(func: Callable[..., object]) -> bool:
    """Whether calling `func` gives a coroutine, as far as it and what it wraps tell."""
    inner: Callable[..., object] | None = func
    while inner is not None and not inspect.iscoroutinefunction(inner):
        inner = getattr(inner, "__wrapped__", None)
    return inner is not None


def is_generator(func: object) -> bool:
    """Whether calling `func` only makes a generator, async or not."""
    return inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func)


def describe(func: object) -> str:
    """How an error's text calls `func`: by its name, or by its type when it has none."""
    name = getattr(func, "__qualname__", None)
    return f"{getattr(func, '__module__', None) or '?'}.{name}" if name else f"a {type(func).__qualname__}"


UNDECLARED = TaskOptions()


def _declare(func: F, *, options: TaskOptions) -> F:
    plain = func.__func__ if isinstance(func, classmethod | staticmethod) else func
    if not isinstance(plain, FunctionType) or is_generator(plain):
        raise InvalidTask(f"@task is for functions, not for {describe(plain)}: put it on a def or an async def")
    if options.executor not in (None, "thread"):
        raise InvalidTask(f'executor is {options.executor!r}: give "thread", or nothing')
    if options.executor == "thread" and is_async(plain):
        raise InvalidTask(f'executor="thread" is for def, and {describe(plain)} is async: leave the option out')
    setattr(plain, _OPTIONS, options)
    return func


def as_text(option: str, value: object, longest: int) -> str | None:
    """A text that can be stored, or None. Raises InvalidTask."""
    if value is None:
        return None
    if isinstance(value, str) and 0 < len(value) <= longest and not _NOT_STORABLE.search(value):
        return value
    raise InvalidTask(f"{option} is {value!r:.60}: give a text of 1 to {longest} characters, without NUL")


def as_whole(option: str, value: object, least: int, most: int) -> int | None:
    """A whole number in these bounds, or None. Raises InvalidTask."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= most):
        return value
    raise InvalidTask(f"{option} is {value!r:.60}: give a whole number from {least} to {most}")


def as_flag(option: str, value: object) -> bool | None:
    """A bool, or None. Raises InvalidTask."""
    if value is None or isinstance(value, bool):
        return value
    raise InvalidTask(f"{option} is {value!r:.60}: give True or False")


def as_timeout(value: Seconds | None) -> timedelta | None:
    """More than no time at all, or None. Raises InvalidTask."""
    limit = None if value is None else duration("timeout", value)
    if limit is not None and not limit:
        raise InvalidTask("timeout is 0: give more than 0 seconds")
    return limit


def _exceptions(option: str, value: object) -> tuple[type[Exception], ...]:
    classes = value if isinstance(value, tuple) else (value,)
    for item in classes:
        if not (inspect.isclass(item) and issubclass(item, Exception)):
            raise InvalidTask(f"{option} holds {item!r:.60}: give an exception class, or a tuple of them")
    return classes
