"""Wait for what a test expects instead of sleeping for luck."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def wait_until(predicate: Callable[[], Awaitable[object] | object], *, deadline: float = 30) -> None:
    """Return once `predicate`, sync or async, is truthy; it is asked often at first, then every quarter of a second.

    Raises:
        AssertionError: it was not within `deadline` seconds; the text names the predicate.
    """
    pause = 0.002
    try:
        async with asyncio.timeout(deadline) as limit:
            while not await _answer(predicate):
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.25)
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(f"waited {deadline:g} s in vain for {_name(predicate)}") from None


async def _answer(predicate: Callable[[], Awaitable[object] | object]) -> object:
    answer = predicate()
    return await answer if inspect.isawaitable(answer) else answer


def _name(predicate: Callable[..., object]) -> str:
    name = getattr(predicate, "__qualname__", repr(predicate))
    if not name.endswith("<lambda>"):
        return name
    return inspect.getsource(predicate).strip()
