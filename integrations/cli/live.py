"""A screen that is drawn again and again, until `q` or Ctrl-C; once where there is no terminal to draw on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeAlias

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ...runtime.errors import DatabaseUnavailable
from ..words import visible
from .output import console

Draw: TypeAlias = Callable[[int, int], Awaitable[RenderableType]]  # width and height

_END = {"q", "Q", "\x03", "\x04"}  # Ctrl-C and Ctrl-D, should the terminal hand them over as keys
_UNBOUNDED = 10_000  # lines
_REST = 4  # times as long as it took to draw is the pause before the next time


async def live(draw: Draw, *, every: float) -> None:
    """Show what `draw` returns, anew every so many seconds and when the terminal changes its size.

    What takes long to draw is drawn less often. While the database is away the last picture stays, with a line that
    says so. Without a terminal the picture is printed once.

    Raises:
        DatabaseUnavailable: there is not even a first picture.
    """
    out = console()
    if not sys.stdout.isatty():
        out.print(await draw(out.width, _UNBOUNDED))
        return
    changed, ended = asyncio.Event(), asyncio.Event()
    deeds = {signal.SIGINT: ended.set, signal.SIGTERM: ended.set, signal.SIGWINCH: changed.set}
    async with _signals(deeds):
        with _keys(lambda keys: ended.set() if _END.intersection(keys) else None):
            showing = asyncio.ensure_future(_show(draw, out, every, changed))
            ending = asyncio.ensure_future(ended.wait())
            await asyncio.wait({showing, ending}, return_when=asyncio.FIRST_COMPLETED)
            for each in (showing, ending):
                each.cancel()
            with suppress(asyncio.CancelledError):
                await showing


async def _show(draw: Draw, out: Console, every: float, changed: asyncio.Event) -> None:
    picture = await draw(out.width, out.height)
    with Live(picture, console=out, screen=True, auto_refresh=False, vertical_overflow="crop") as shown:
        shown.refresh()
        took = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(every, took * _REST)):
                    await changed.wait()
            changed.clear()
            began = time.monotonic()
            try:
                picture = await draw(out.width, out.height)
                shown.update(picture, refresh=True)
            except DatabaseUnavailable as error:
                shown.update(Group(Text(visible(str(error)), style="red", no_wrap=True), picture), refresh=True)
            took = time.monotonic() - began


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
