"""A PostgreSQL server as seen over a network that fails on purpose."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_SYNC = b"S\x00\x00\x00\x04"  # Sync: the end of one statement
_IDLE = b"Z\x00\x00\x00\x05I"  # ReadyForQuery, outside of a transaction: what was sent before is committed


class Proxy:
    """Passes connections on to `target`, until it is told otherwise."""

    def __init__(self, target: Path, listening: Path) -> None:
        self._target = target
        self._listening = listening
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._fatal: bytes | None = None
        self._slow: bytes | None = None
        self._delivering = asyncio.Event()
        self.delay = 0.0  # seconds by which everything comes later, both ways
        self.cuts = 0
        self.held = 0  # statements that were kept back
        self.asked = 0  # statements that clients have sent

    async def open(self) -> None:
        """Take connections, and pass on what comes."""
        self._passing.set()
        self._server = await asyncio.start_unix_server(self._serve, self._listening)

    def cut(self) -> None:
        """Break every connection and refuse new ones, until `open`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._listening.unlink(missing_ok=True)
        self._break()

    def freeze(self) -> None:
        """Take everything and pass on nothing, as a host that vanished behind a firewall."""
        self._passing.clear()

    def thaw(self) -> None:
        """Pass on what was held back, late as it is, and all that follows."""
        self._passing.set()

    def cut_after(self, text: bytes) -> None:
        """Break the connection on which `text` is sent next, once the server has committed what it says."""
        self._fatal = text

    def hold(self, text: bytes) -> None:
        """Break the connection on which `text` is sent next, and keep what it says on its way until `deliver`."""
        self._slow = text
        self._delivering.clear()

    def deliver(self) -> None:
        """Let arrive what was kept back, whose sender has long gone."""
        self._delivering.set()

    async def close(self) -> None:
        self._passing.set()
        self._delivering.set()
        self.cut()

    def _break(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._target)
        self._open |= {writer, to_server}
        doomed = asyncio.Event()
        with suppress(OSError):
            await asyncio.gather(
                self._pass(reader, to_server, doomed, client=writer),
                self._pass(from_server, writer, doomed),
            )
        for end in (writer, to_server):
            end.transport.abort()
            self._open.discard(end)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        doomed: asyncio.Event,
        client: asyncio.StreamWriter | None = None,
    ) -> None:
        """From a client, when it is given, else the answers to one."""
        answers, slow = client is None, False
        while chunk := await reader.read(65_536):
            await self._passing.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            self.asked += 0 if answers else chunk.count(_SYNC)
            if not answers and self._fatal and self._fatal in chunk:
                self._fatal = None
                doomed.set()
            if answers and doomed.is_set():
                if _IDLE in chunk:
                    self.cuts += 1
                    raise ConnectionResetError
                continue
            if client is not None and self._slow and self._slow in chunk:
                self._slow, slow = None, True
            if client is not None and slow and _SYNC in chunk:  # the first one that has it asks to carry it out
                self.held += 1
                client.transport.abort()
                await self._delivering.wait()
            writer.write(chunk)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of the database, and the DSN that leads through it."""
    query = parse_qs(urlsplit(dsn).query)
    name = f".s.PGSQL.{query.get('port', ['5432'])[0]}"
    with tempfile.TemporaryDirectory(prefix="proxy-") as folder:
        proxy = Proxy(Path(query["host"][0], name), Path(folder, name))
        await proxy.open()
        try:
            yield proxy, re.sub(r"host=[^&]*", f"host={folder}", dsn)
        finally:
            await proxy.close()
