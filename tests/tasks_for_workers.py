"""What the workers of the tests run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from loguru import logger

from queued_tasks.runtime.context import get_context, get_full_context, set_context
from queued_tasks.runtime.current import get_current_task
from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.hooks import HookTask, on_post_run, on_pre_run, on_worker_start, on_worker_stop, worker_state
from queued_tasks.runtime.logging import getLogger
from queued_tasks.runtime.options import task
from queued_tasks.runtime.retry import Cancel, Retry
from tests.odd_errors import ODD

own = getLogger(__name__)
plain = logging.getLogger("somebody.else")


async def nothing() -> None: ...


def collects_this_module() -> bool:
    """Whether the garbage collector looks through what the application imported."""
    return any(known is globals() for known in gc.get_objects())


async def add(a: int, b: int) -> int:
    return a + b


def add_plainly(a: int, b: int) -> int:
    return a + b


@task(executor="thread")
def thread_name() -> str:
    return threading.current_thread().name


def thread_of_function() -> str:
    return threading.current_thread().name


async def fail(text: str) -> None:
    raise ValueError(text)


def fail_plainly(text: str) -> None:
    raise ValueError(text)


async def leave() -> None:
    sys.exit(7)


def leave_plainly() -> None:
    sys.exit(7)


@task(executor="thread")
def stop_iteration() -> None:
    raise StopIteration


@task(give_up_on=ValueError)
async def fail_for_good() -> None:
    raise ValueError


async def odd_result() -> object:
    return object()


async def odd_text() -> None:
    raise ValueError("\0 and \ud800")


async def again(seconds: float) -> None:
    raise Retry(in_=timedelta(seconds=seconds))


def note_in_threads() -> object:
    """Write the context on a thread and on two runs of one in a pool."""
    thread = threading.Thread(target=set_context, args=("thread", 1))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(lambda number: set_context(f"pool.{number}", number), range(2)))
    return get_full_context()


async def note_in_pool(name: str) -> object:
    """Write the context on the thread of a pool that all tasks share."""
    await asyncio.get_running_loop().run_in_executor(shared_pool, set_context, name, 1)
    await asyncio.sleep(0)
    return get_full_context()


shared_pool = ThreadPoolExecutor(1)


async def no_more(reason: str) -> None:
    raise Cancel(reason)


async def no_more_in_a_group(reason: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(no_more(reason))
        group.create_task(sleep(1000))


async def raise_odd(which: str) -> None:
    raise ODD[which]()


def raise_odd_plainly(which: str) -> None:
    raise ODD[which]()


async def take_all_along() -> None:
    os._exit(9)


def take_all_along_plainly() -> None:
    os._exit(9)


async def sleep(seconds: float) -> None:
    plain.info("sleeping")
    await asyncio.sleep(seconds)


async def sleep_on() -> str:
    """Swallows the first interrupt."""
    plain.info("sleeping")
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(1000)
    return "slept"


async def sleep_then_say() -> None:
    plain.info("sleeping")
    try:
        await asyncio.sleep(1000)
    finally:
        plain.info("over")


async def swallow() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            plain.info("swallowing")
            await asyncio.sleep(1000)


def swallow_plainly() -> None:
    while True:
        with contextlib.suppress(BaseException):
            plain.info("swallowing")
            time.sleep(1000)


async def block() -> None:
    while True:
        pass


async def block_in_child() -> None:
    await asyncio.gather(asyncio.sleep(1000), block())


async def count_for_ages() -> None:
    sum(range(10**15))


def spin() -> None:
    plain.info("spinning")
    while True:
        pass


def sleep_plainly(seconds: float) -> None:
    plain.info("sleeping")
    time.sleep(seconds)


def spin_through_exceptions() -> None:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.001)


class _SpinsAtItsEnd:
    def __del__(self) -> None:
        spin()


class _FailsAtItsEnd:
    def __del__(self) -> None:
        raise ValueError("no")


def spin_through_errors_of_finalizers() -> None:
    while True:
        _FailsAtItsEnd()


def spin_in_a_finalizer() -> None:
    _SpinsAtItsEnd()
    spin()


@task(executor="thread")
def sleep_on_thread(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


async def context_of_mine(value: int) -> object:
    before = get_context("count")
    set_context("count", value)
    return before


def context_of_mine_plainly(value: int) -> object:
    before = get_context("count")
    set_context("count", value)
    return before


async def context_then_sleep() -> None:
    for number in range(100):
        set_context("number", number)
    await asyncio.sleep(1000)


def context_then_spin() -> None:
    set_context("number", 1)
    while True:
        pass


async def who_am_i() -> list[object]:
    current = get_current_task()
    assert current is not None
    return [str(current.id), current.name, current.attempt, current.deadline is not None]


def who_am_i_plainly() -> list[object]:
    current = get_current_task()
    assert current is not None
    return [str(current.id), current.name, current.attempt, current.deadline is not None]


async def log_all_ways() -> None:
    own.debug("own debug")
    plain.warning("plain %s", "warning")
    logger.info("loguru info")
    try:
        raise KeyError("key")
    except KeyError:
        plain.exception("with a traceback")
    plain.info("%d", "no number")
    plain.info("\ud800\0")


def log_plainly() -> None:
    own.debug("own debug")
    logger.error("loguru error")


async def log_then_sleep() -> None:
    await asyncio.to_thread(plain.info, "from a thread")
    await asyncio.sleep(1000)


async def log_much(lines: int) -> None:
    for number in range(lines):
        plain.info("line %d", number)


async def add_tasks(awaited: bool) -> str:
    tasks = QueuedTasks.current()
    ref = tasks.add_task(add, 1, 2)
    if awaited:
        await ref
    return str(ref.id)


def add_task_plainly() -> None:
    QueuedTasks.current().add_task(add, 1, 2)


async def add_then_fail() -> None:
    QueuedTasks.current().add_task(add, 1, 2)
    raise ValueError


async def ask_for_pending() -> int:
    return await QueuedTasks.current().get_pending_tasks_count()


async def opened() -> object:
    return getattr(worker_state(), "opened", None)


async def app_title() -> object:
    current = get_current_task()
    assert current is not None
    return [current.app.title, getattr(current.app.state, "open", None)]


def opened_plainly() -> object:
    return getattr(worker_state(), "opened", None)


async def change_hooked() -> object:
    return [get_context("hooked"), get_context("hooked plainly")]


def change_hooked_plainly() -> object:
    return [get_context("hooked"), get_context("hooked plainly")]


def pid() -> int:
    return os.getpid()


def when(name: str, hook: Callable[..., object]) -> Callable[..., object]:
    """A hook that acts only where a test asks for it."""
    if os.environ.get("TEST_HOOKS"):
        {
            "start": on_worker_start,
            "stop": on_worker_stop,
            "pre": on_pre_run,
            "post": on_post_run,
        }[name](hook)
    return hook


async def _start() -> None:
    await asyncio.sleep(0)
    worker_state().opened = "at the start"


async def _stop() -> None:
    await asyncio.sleep(0)
    plain.info("stopped: %s", worker_state().opened)


async def _before(task: HookTask) -> None:
    await asyncio.sleep(0)
    task.context["hooked"] = task.name


def _before_plainly(task: HookTask) -> None:
    task.context["hooked plainly"] = task.args


async def _after(task: HookTask, result: object = None, error: BaseException | None = None) -> None:
    await asyncio.sleep(0)
    plain.info("after %s: %r %s", task.name, result, type(error).__name__)
    raise RuntimeError("a hook's own")


when("start", _start)
when("stop", _stop)
when("pre", _before)
when("pre", _before_plainly)
when("post", _after)
