"""A server as a child process of whoever serves HTTP: `queued-tasks serve`, the demo, development."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

_PR_SET_PDEATHSIG: Final = 1


class ChildServer:
    """A running `queued-tasks start`.

    It has a session of its own, so that a Ctrl-C in the terminal reaches it only through us, in order. When we are
    killed it drains and leaves (on Linux).
    """

    def __init__(self, running: asyncio.subprocess.Process) -> None:
        self._running = running

    @classmethod
    async def start(
        cls,
        *,
        app: str,
        app_dir: Path,
        workers: int | None,
        name: str | None = None,
        environ: Mapping[str, str] | None = None,
        log: IO[bytes] | None = None,
    ) -> ChildServer:
        """Start it with the settings of this process's environment and `environ`; `log` is for what it prints."""
        options = ["--app", app, "--app-dir", str(app_dir), "--with-parent", str(os.getpid())]
        options += [] if workers is None else ["--workers", str(workers)]
        options += [] if name is None else ["--name", name]
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "queued_tasks", "start", *options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )
        )

    @property
    def pid(self) -> int:
        return self._running.pid

    async def exited(self) -> int:
        """Wait for its end; the exit code."""
        return await self._running.wait()

    def terminate(self) -> None:
        """Ask it to drain and leave; asked again, it leaves at once."""
        if self._running.returncode is None:
            self._running.terminate()

    async def stop(self) -> int:
        """Let it drain and leave; the exit code."""
        self.terminate()
        return await self.exited()


def leave_with(parent: int) -> None:
    """Be told to drain as soon as the process `parent`, which started this one, is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        signal.raise_signal(signal.SIGTERM)
