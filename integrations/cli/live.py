"""A screen that is drawn again and again, until `q` or Ctrl-C; once where there is no terminal to draw on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeAlias

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ...runtime.errors import DatabaseUnavailable
from .output import console, visible

Draw: TypeAlias = Callable[[int, int], Awaitable[RenderableType]]  # width and height

_END = {"q", "Q", "\x03", "\x04"}  # Ctrl-C and Ctrl-D, should the terminal hand them over as keys
_UNBOUNDED = 10_000  # lines


async def live(draw: Draw, *, every: float) -> None:
    """Show what `draw` returns, anew every so many seconds and when the terminal changes its size.

    While the database is away the last picture stays, with a line that says so. Without a terminal the picture is
    printed once.

    Raises:
        DatabaseUnavailable: there is not even a first picture.
    """
    out = console()
    picture = await draw(out.width, out.height if out.is_terminal else _UNBOUNDED)
    if not out.is_terminal:
        out.print(picture)
        return
    with Live(picture, console=out, screen=True, auto_refresh=False, vertical_overflow="crop") as shown:
        shown.refresh()
        async for _ in _moments(every):
            try:
                picture = await draw(out.width, out.height)
                shown.update(picture, refresh=True)
            except DatabaseUnavailable as error:
                shown.update(Group(Text(visible(str(error)), style="red", no_wrap=True), picture), refresh=True)


async def _moments(every: float) -> AsyncIterator[None]:
    """When it is time to draw; ends with `q` or Ctrl-C."""
    changed, ended = asyncio.Event(), asyncio.Event()

    def end() -> None:
        ended.set()
        changed.set()

    async with _signals({signal.SIGINT: end, signal.SIGTERM: end, signal.SIGWINCH: changed.set}):
        with _keys(lambda keys: end() if _END.intersection(keys) else None):
            while not ended.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(every):
                        await changed.wait()
                changed.clear()
                if not ended.is_set():
                    yield


@asynccontextmanager
async def _signals(deeds: dict[signal.Signals, Callable[[], None]]) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    for number, deed in deeds.items():
        loop.add_signal_handler(number, deed)
    try:
        yield
    finally:
        for number in deeds:
            loop.remove_signal_handler(number)


@contextmanager
def _keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Tell at once what is typed, where something can be."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, lambda: pressed(os.read(descriptor, 64).decode(errors="replace")))
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
