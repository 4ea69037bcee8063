"""HTTP in this process, by uvicorn, for as long as its caller wants: signals are the caller's business."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import uvicorn

from ..runtime.errors import ConfigurationError


class WebServer(uvicorn.Server):
    """A uvicorn server of an application that is loaded already, on a socket that listens already.

    Raises:
        ConfigurationError: the application can't be imported; its traceback is on stderr.
    """

    def __init__(self, app: str, folder: Path, *, grace: timedelta, quiet: bool = False) -> None:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        level = "error" if quiet else "info"
        config = uvicorn.Config(app, log_level=level, timeout_graceful_shutdown=max(round(grace.total_seconds()), 1))
        _load(config)
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def serve_on(self, listener: socket.socket) -> bool:
        """Serve until `stop`; False when the application's start failed, which it has logged."""
        try:
            await self.serve(sockets=[listener])
        except SystemExit:
            return False
        return self.started

    def stop(self) -> None:
        """Finish the open requests and end; called again, don't wait for them."""
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; port 0 is any free one.

    Raises:
        ConfigurationError: the address is taken, or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # strerror of the error itself repeats the address
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ConfigurationError(
            f"Nothing can listen on {host}:{port} ({reason}): choose another --port or --host."
        ) from None


def _load(config: uvicorn.Config) -> None:
    try:
        config.load()
    except SystemExit:
        reason = "see the line above"
    except Exception:
        traceback.print_exc()
        reason = "see its traceback above"
    else:
        return
    raise ConfigurationError(f"The app {config.app} can't be imported, {reason}: check --app and --app-dir.")
