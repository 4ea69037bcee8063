"""Answer the probes of an orchestrator: is this process alive, does it take work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from loguru import logger

from ..runtime.errors import ConfigurationError

_PATIENCE = 5.0  # seconds for a request to arrive


@asynccontextmanager
async def probes(host: str, port: int, *, ready: Callable[[], bool]) -> AsyncIterator[None]:
    """Serve `/livez` (200 while the event loop runs) and `/readyz` (200 while `ready`, else 503) over HTTP.

    Raises:
        ConfigurationError: the port is taken.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                _method, _, rest = (await reader.readline()).partition(b" ")
                writer.write(_response(rest.split(b" ")[0].split(b"?")[0], ready))
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(answer, host, port)
    except OSError as error:
        raise ConfigurationError(
            f"QUEUE_HEALTH_PORT {port} can't be used on {host} ({error.strerror}): choose another"
        ) from None
    bound = server.sockets[0].getsockname()[1]
    logger.info("probes on http://{}:{}/livez and /readyz", host, bound)
    async with server:
        yield


def _response(path: bytes, ready: Callable[[], bool]) -> bytes:
    if path == b"/livez":
        status, body = "200 OK", "alive"
    elif path == b"/readyz":
        status, body = ("200 OK", "ready") if ready() else ("503 Service Unavailable", "not claiming")
    else:
        status, body = "404 Not Found", "ask for /livez or /readyz"
    head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return (head + body).encode()
