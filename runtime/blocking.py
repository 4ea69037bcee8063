"""Let a thread without an event loop wait for what is async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import copy_context
from threading import current_thread, main_thread
from typing import Any, TypeVar

from .current import Block
from .errors import InvalidState

T = TypeVar("T")


def runs_loop() -> bool:
    """Whether an event loop runs in this thread, which waiting here would stop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def result_of(asked: Future[T]) -> T:
    """Wait for an answer; who is interrupted meanwhile gives it up."""
    try:
        return asked.result()
    finally:
        asked.cancel()


def block_on(loop: asyncio.AbstractEventLoop, runner: asyncio.Runner | None = None) -> Block:
    """How to wait for what goes on on `loop`. With a `runner` the user's own code runs on that, on the main thread."""

    def block(work: Coroutine[Any, Any, T], *, own_code: bool = False) -> T:
        refuse_on_loop(work.close)
        if own_code and runner is not None and current_thread() is main_thread():
            return runner.run(work, context=copy_context())
        return result_of(asyncio.run_coroutine_threadsafe(work, loop))

    return block


def refuse_on_loop(give_up: Callable[[], object] = lambda: None) -> None:
    """Raise InvalidState where an event loop runs in this thread, after calling `give_up`."""
    if runs_loop():
        give_up()
        raise InvalidState(
            "This call blocks its thread, and an event loop runs in it: use the handle whose methods are awaited, "
            "QueuedTasks.current() in a task, QueuedTasks.connect() elsewhere."
        )
