"""Which function a row means: references, who may resolve them, and what a function declares with @task."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FunctionType
from typing import Literal, TypeAlias, TypeVar, overload

from .errors import InvalidTask
from .retry import Backoff, Seconds, duration
from .task import Executor

F = TypeVar("F", bound=Callable[..., object])
Exceptions: TypeAlias = type[Exception] | tuple[type[Exception], ...]

_MAIN = ("__main__", "__mp_main__")
_OPTIONS = "__queued_task__"
_INSTALLED = {"site-packages", "dist-packages"}


class UnknownFunction(InvalidTask):
    """A stored reference names nothing that can be imported here; another server, or another version, may know it."""


class FunctionNotAllowed(InvalidTask):
    """A stored reference names what a worker must not run, or is malformed."""


@dataclass(frozen=True)
class AllowList:
    """Which modules a worker may import for a task: by prefix, or by lying under the application's folder.

    The prefix `a.b` allows `a.b` and `a.b.c`, not `a.bc`. What is installed below `folder` (site-packages, the
    standard library) is not part of the application. With `only_decorated` a function also needs @task.
    """

    prefixes: tuple[str, ...] = ()
    folder: Path | None = None
    only_decorated: bool = False

    def allows(self, module_name: str) -> bool:
        """Decide without running any code of the module or its parents."""
        if any(module_name == prefix or module_name.startswith(f"{prefix}.") for prefix in self.prefixes):
            return True
        if self.folder is None:
            return False
        spec = _deciding_spec(module_name)
        if spec is None or spec.origin is None or not spec.has_location:
            return False
        return _belongs_to(Path(spec.origin).resolve(), self.folder.resolve())

    def may_come_to_know(self, module_name: str) -> bool:
        """Whether nothing by this name is here, so that the folder may get it with the next deploy."""
        return self.folder is not None and _deciding_spec(module_name) is None


def reference(func: Callable[..., object]) -> str:
    """`module:qualname` of an importable function, static or class method; of `__main__`, under its importable name.

    Raises:
        InvalidTask: resolving it would not give `func` back; the text says why, and the cure.
    """
    try:
        return _reference(func)
    except TypeError:  # unhashable, so no function: only the refusal is left to be made
        return _reference.__wrapped__(func)


def is_local(func: Callable[..., object]) -> bool:
    """Whether `func` is a lambda, a closure or another function without a name to import it by.

    `reference` refuses these and they could only be serialized; whatever else it refuses can't become a task at all.
    """
    return isinstance(func, FunctionType) and not _is_generator(func) and "<" in func.__qualname__


def resolve(reference: str, allowed: AllowList) -> Callable[..., object]:
    """The function that a row's reference names; imported once, then remembered.

    The object found is looked at, not only the text: what an allowed module imported from elsewhere is refused.

    Raises:
        UnknownFunction: allowed, but no such module or function is here; an error of the import is its cause.
        FunctionNotAllowed: outside the allow-list, or no function that could have been added as a task.
    """
    known = _resolved.get(reference)
    if known is None or known[0] is not allowed:
        known = _resolved[reference] = allowed, _resolve(reference, allowed)
    return known[1]


def executor_of(func: Callable[..., object]) -> Executor:
    """Where `func` runs: async when it, or what it wraps, is `async def`; else on a main thread unless declared."""
    if _is_async(func):
        return Executor.ASYNC
    return Executor.THREAD if options_of(func).executor == "thread" else Executor.SYNC


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
    return options if isinstance(options, TaskOptions) else _UNDECLARED


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
        name=_text("name", name, 200),
        channel=_text("channel", channel, 100),
        priority=_whole("priority", priority, -32_768, 32_767),
        max_retries=_whole("max_retries", max_retries, 0, 32_767),
        timeout=_timeout(timeout),
        backoff=backoff if backoff is None or callable(backoff) else duration("backoff", backoff),
        retry_on=_exceptions("retry_on", retry_on),
        give_up_on=_exceptions("give_up_on", give_up_on),
        unique=unique if unique is None or isinstance(unique, bool) else _text("unique", unique, 500),
        auto_remove=_flag("auto_remove", auto_remove),
        executor=executor,
    )
    declare = functools.partial(_declare, options=options)
    return declare if func is None else declare(func)


_UNDECLARED = TaskOptions()
_resolved: dict[str, tuple[AllowList, Callable[..., object]]] = {}


def _declare(func: F, *, options: TaskOptions) -> F:
    plain = func.__func__ if isinstance(func, classmethod | staticmethod) else func
    if not isinstance(plain, FunctionType) or _is_generator(plain):
        raise InvalidTask(f"@task is for functions, not for {_describe(plain)}: put it on a def or an async def")
    if options.executor not in (None, "thread"):
        raise InvalidTask(f'executor is {options.executor!r}: give "thread", or nothing')
    if options.executor == "thread" and _is_async(plain):
        raise InvalidTask(f'executor="thread" is for def, and {_describe(plain)} is async: leave the option out')
    setattr(plain, _OPTIONS, options)
    return func


@functools.lru_cache(maxsize=4096)
def _reference(func: Callable[..., object]) -> str:
    refusal = _refusal(func)
    if refusal:
        raise InvalidTask(f"{_describe(func)} {refusal}")
    module_name, qualname = _own_name(func)
    try:
        home = sys.modules[func.__module__] if func.__module__ in _MAIN else importlib.import_module(module_name)
        _split(f"{module_name}:{qualname}")
        found = _walk(home, qualname)
    except (ImportError, AttributeError, InvalidTask, TypeError, ValueError) as error:
        raise InvalidTask(f"{_describe(func)} can't be imported by its name: {error}") from error
    if found != func:
        raise InvalidTask(
            f"{_describe(func)} is not what {module_name}:{qualname} names: "
            "use functools.wraps in its decorator, or give it the name that it is bound to"
        )
    return f"{module_name}:{qualname}"


def _refusal(func: object) -> str | None:
    """Why `func` can't be named in a row, and the cure; None when it may be."""
    plain = getattr(func, "__func__", func) if inspect.ismethod(func) else func
    if inspect.iscoroutine(func):
        return "is a call, not a function: pass the function and its arguments apart, add_task(fn, arg)"
    if isinstance(func, functools.partial):
        return "is a functools.partial: pass the function itself, and the partial's arguments to add_task"
    if inspect.isclass(func):
        return "is a class: give a function that makes the object and uses it"
    if not callable(func):
        return "is not callable: give a function"
    if inspect.isroutine(plain) and not isinstance(plain, FunctionType):
        return "is built in: call it in a function of your own"
    if inspect.ismethod(func) and not inspect.isclass(func.__self__):
        return (
            "is bound to an instance, which can't travel to the worker: make it a static or class method, "
            "or pass the object's id to a function that loads it"
        )
    if not isinstance(plain, FunctionType):
        return "is a callable object: give a function that calls it"
    if _is_generator(plain):
        return "is a generator: give a function that runs through it"
    if is_local(plain):
        return (
            "is a local function or lambda, without a name to import it by: move it to module level "
            "(functools.wraps in a decorator), or set QUEUE_SECRET_KEY so that it can be serialized and signed"
        )
    if "<" in f"{func.__self__.__qualname__ if inspect.ismethod(func) else ''}":
        return "belongs to a class inside a function: move the class to module level"
    return None
