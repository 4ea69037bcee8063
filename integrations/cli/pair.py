"""HTTP in this process and a server in a child process, which end together and in order."""

from __future__ import annotations

import asyncio
import signal
import socket

from ..child import ChildServer
from ..web import WebServer
from .output import complain

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Pair:
    """HTTP first, so that nobody adds tasks any more; then the server drains."""

    def __init__(self, web: WebServer, child: ChildServer) -> None:
        self._web = web
        self._child = child
        self._draining = False
        self._stopped = False

    async def run(self, listener: socket.socket) -> int:
        """Serve until `stop`, Ctrl-C, SIGTERM, or the end of either; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop)
        watch = asyncio.ensure_future(self._watch())
        try:
            served = await self._web.serve_on(listener)
        finally:
            self._draining = True
            code = await self._child.stop()
            await watch
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
        # One that is told to stop before it listens to signals is ended by the signal, with nothing begun.
        orderly = code == 0 or (code == -signal.SIGTERM and self._stopped)
        return 0 if served and orderly else 1

    def stop(self) -> None:
        """End both in order; called again, don't wait for what is still running."""
        self._stopped = True
        if self._draining:
            self._child.terminate()
        else:
            self._web.stop()

    async def _watch(self) -> None:
        code = await self._child.exited()
        if not self._draining:
            complain(f"the server ended by itself (exit code {code}), so HTTP ends, too: its last lines say why.")
            self._web.stop()
