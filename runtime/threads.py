"""Let threads know which task they work for. Python itself tells only those of asyncio.to_thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial, wraps
from threading import Thread
from typing import Any

from .current import running_here


def inherit_context() -> None:
    """From now on a thread that a task starts, and what anybody hands to a thread pool, has the starter's context.

    For processes that are ours: a pool outlives the tasks that use it, so it is the work that has to carry its context.
    """
    start = Thread.start
    submit: Callable[..., Future[Any]] = ThreadPoolExecutor.submit

    @wraps(start)
    def started(self: Thread) -> None:
        if running_here.get() is not None:
            self.run = partial(copy_context().run, self.run)  # type: ignore[method-assign]  # of this one thread
        start(self)

    @wraps(submit)
    def submitted(self: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return submit(self, copy_context().run, work, *args, **kwargs)

    setattr(Thread, "start", started)  # noqa: B010  # a type checker takes methods for constants
    setattr(ThreadPoolExecutor, "submit", submitted)  # noqa: B010  # likewise
