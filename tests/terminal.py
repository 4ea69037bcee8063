"""Run the command line on a terminal of its own, type into it, and read what it draws."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.command import environment

LIMIT = 30  # seconds

_CODES = re.compile(r"\x1b(?:\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9]|[=>])")


class Terminal:
    """A command and its terminal."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self._process = process
        self._descriptor = descriptor
        self._came = asyncio.Event()
        self._drawn = b""
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    @property
    def drawn(self) -> str:
        """All that was drawn so far, without the codes that say where and how."""
        return _CODES.sub("", self._drawn.decode(errors="replace")).replace("\r", "")

    @property
    def modes(self) -> int:
        """How the terminal treats what is typed: whether it shows it, and waits for the end of the line."""
        return int(termios.tcgetattr(self._descriptor)[3]) & (termios.ECHO | termios.ICANON)

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    async def shows(self, text: str) -> None:
        """Wait until `text` was drawn."""
        async with asyncio.timeout(LIMIT):
            while text not in self.drawn:
                self._came.clear()
                await self._came.wait()

    async def exited(self) -> int:
        async with asyncio.timeout(LIMIT):
            return await self._process.wait()

    def _read(self) -> None:
        try:
            self._drawn += os.read(self._descriptor, 65_536)
        except OSError:  # the other side is closed
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._came.set()


@asynccontextmanager
async def on_terminal(
    *arguments: object, database: str, columns: int = 80, lines: int = 24, **environ: str
) -> AsyncIterator[Terminal]:
    """`queued-tasks` with these arguments on a terminal of this size, killed at last."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "queued_tasks", *map(str, arguments)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(database), "COLUMNS": "", "TERM": "xterm", **environ},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
    )
    terminal = Terminal(process, ours)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)
