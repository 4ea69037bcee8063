"""What a function declares with @task, and where it runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from queued_tasks.runtime.errors import InvalidTask
from queued_tasks.runtime.functions import TaskOptions, executor_of, options_of, task
from queued_tasks.runtime.task import Executor


def sync() -> None: ...


async def coroutine() -> None: ...


def passing(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(*args: object) -> object:
        return func(*args)

    return wrapper


def awaiting(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    async def wrapper(*args: object) -> object:
        return func(*args)

    return wrapper


class Jobs:
    @classmethod
    async def fetch(cls) -> None: ...

    @classmethod
    def build(cls) -> None: ...

    @task(priority=7)
    @classmethod
    def outside(cls) -> None: ...

    @classmethod
    @task(priority=7)
    def inside(cls) -> None: ...

    @task(priority=7)
    @staticmethod
    def static() -> None: ...


def test_a_decorated_function_is_the_function_itself() -> None:
    def job() -> None: ...

    assert [task(job), task()(job), task(priority=1)(job)] == [job, job, job]


def test_an_undecorated_function_declares_nothing() -> None:
    assert options_of(sync) == TaskOptions()


def test_a_bare_decorator_declares_nothing() -> None:
    @task
    def job() -> None: ...

    assert options_of(job) == TaskOptions()


def test_what_is_declared_is_kept() -> None:
    def backoff(failures: int) -> float:
        return failures

    @task(
        name="mail",
        channel="slow",
        priority=-5,
        max_retries=0,
        timeout=1.5,
        backoff=backoff,
        retry_on=(OSError, ValueError),
        give_up_on=KeyError,
        unique=True,
        auto_remove=False,
        executor="thread",
    )
    def job() -> None: ...

    assert options_of(job) == TaskOptions(
        name="mail",
        channel="slow",
        priority=-5,
        max_retries=0,
        timeout=timedelta(seconds=1.5),
        backoff=backoff,
        retry_on=(OSError, ValueError),
        give_up_on=(KeyError,),
        unique=True,
        auto_remove=False,
        executor="thread",
    )


@pytest.mark.parametrize("func", [Jobs.outside, Jobs.inside, Jobs.static])
def test_methods_declare_on_either_side_of_their_decorator(func: Callable[..., Any]) -> None:
    assert options_of(func).priority == 7


def test_options_survive_a_decorator_that_wraps() -> None:
    assert options_of(passing(task(priority=3)(lambda: None))).priority == 3


@pytest.mark.parametrize("given", [5, 5.0, timedelta(seconds=5)])
def test_timeout_and_backoff_are_kept_as_timedeltas(given: float | timedelta) -> None:
    job = task(timeout=given, backoff=given)(lambda: None)
    assert (options_of(job).timeout, options_of(job).backoff) == (timedelta(seconds=5), timedelta(seconds=5))


LONG = "x" * 1000
BAD: list[tuple[str, object, str]] = [
    ("name", "", "name is '': give a text of 1 to 200 characters, without NUL"),
    ("name", LONG, "name is 'x+: give a text of 1 to 200 characters"),
    ("name", 5, "name is 5: give a text"),
    ("channel", "", "channel is '': give a text of 1 to 100 characters, without NUL"),
    ("channel", "x" * 101, "channel is 'x+: give"),
    ("channel", "a\0b", r"channel is 'a\\x00b': give"),
    ("channel", "\ud800", r"channel is '\\ud800': give"),
    ("priority", 32_768, "priority is 32768: give a whole number from -32768 to 32767"),
    ("priority", -32_769, "priority is -32769: give"),
    ("priority", 1.0, "priority is 1.0: give"),
    ("priority", True, "priority is True: give"),
    ("max_retries", -1, "max_retries is -1: give a whole number from 0 to 32767"),
    ("max_retries", 32_768, "max_retries is 32768: give"),
    ("timeout", 0, "timeout is 0: give more than 0 seconds"),
    ("timeout", 1e-9, "timeout is 0: give more than 0 seconds"),
    ("timeout", -1, "timeout is -1: give seconds or a timedelta, from 0 to 3650 days"),
    ("timeout", math.nan, "timeout is nan: give seconds"),
    ("timeout", math.inf, "timeout is inf: give seconds"),
    ("timeout", "5", "timeout is '5': give seconds"),
    ("backoff", -1, "backoff is -1: give seconds"),
    ("backoff", "fast", "backoff is 'fast': give seconds"),
    ("retry_on", (int,), "retry_on holds <class 'int'>: give an exception class, or a tuple of them"),
    ("retry_on", (ValueError("x"),), "retry_on holds ValueError"),
    ("retry_on", None, "retry_on holds None: give"),
    ("give_up_on", (KeyboardInterrupt,), "give_up_on holds <class 'KeyboardInterrupt'>: give"),
    ("give_up_on", [OSError], "give_up_on holds .*: give an exception class, or a tuple of them"),
    ("unique", "", "unique is '': give a text of 1 to 500 characters"),
    ("unique", 3, "unique is 3: give a text"),
    ("auto_remove", 1, "auto_remove is 1: give True or False"),
    ("executor", "process", "executor is 'process': give \"thread\", or nothing"),
]


@pytest.mark.parametrize(("option", "value", "text"), BAD, ids=[f"{bad[0]}-{at}" for at, bad in enumerate(BAD)])
def test_a_bad_option_is_named_at_the_decoration(option: str, value: Any, text: str) -> None:
    with pytest.raises(InvalidTask, match=text):
        task(**{option: value})(sync)


@pytest.mark.parametrize(
    ("option", "value"),
    [("priority", 32_767), ("priority", -32_768), ("max_retries", 32_767), ("channel", "x" * 100), ("name", "n" * 200)],
)
def test_the_limits_themselves_are_allowed(option: str, value: Any) -> None:
    assert getattr(options_of(task(**{option: value})(lambda: None)), option) == value


@pytest.mark.parametrize("func", [coroutine, passing(coroutine), awaiting(sync)])
def test_a_thread_is_only_for_def(func: Callable[..., Any]) -> None:
    with pytest.raises(InvalidTask, match=r'executor="thread" is for def, and .* is async: leave the option out'):
        task(executor="thread")(func)


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("func", [Jobs, len, functools.partial(sync), generator, 3])
def test_the_decorator_stands_on_functions_only(func: Any) -> None:
    with pytest.raises(InvalidTask, match=r"^@task is for functions, not for .*: put it on a def or an async def$"):
        task(func)


@pytest.mark.parametrize(
    ("func", "executor"),
    [
        (coroutine, Executor.ASYNC),
        (passing(coroutine), Executor.ASYNC),
        (awaiting(sync), Executor.ASYNC),
        (Jobs.fetch, Executor.ASYNC),
        (functools.partial(coroutine), Executor.ASYNC),
        (sync, Executor.SYNC),
        (passing(sync), Executor.SYNC),
        (Jobs.build, Executor.SYNC),
        (task(executor="thread")(lambda: None), Executor.THREAD),
        (passing(task(executor="thread")(lambda: None)), Executor.THREAD),
        (awaiting(task(executor="thread")(lambda: None)), Executor.ASYNC),
    ],
)
def test_a_function_runs_where_its_kind_asks_for(func: Callable[..., Any], executor: Executor) -> None:
    assert executor_of(func) is executor
