"""Messages over a stream socket: length-prefixed msgpack frames, and the mailbox that sends and receives them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar, cast

import msgspec

from .errors import QueuedTasksError

T = TypeVar("T")

FRAME_LIMIT: Final = 64 * 1024 * 1024
_LENGTH: Final = struct.Struct("!I")
_ENCODER: Final = msgspec.msgpack.Encoder()


class FrameTooLarge(QueuedTasksError):
    """A message takes more than `FRAME_LIMIT` bytes, or what came in is no frame at all."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"a message of {size} bytes exceeds the limit of {FRAME_LIMIT}: store large values elsewhere, pass a key"
        )


def frame(message: object) -> bytes:
    """Encode `message` as one frame: its length in 4 bytes, big-endian, then its msgpack.

    Raises:
        FrameTooLarge: the other side would refuse it.
        TypeError: msgpack has no form for it.
    """
    body = _ENCODER.encode(message)
    if len(body) > FRAME_LIMIT:
        raise FrameTooLarge(len(body))
    return _LENGTH.pack(len(body)) + body


class FrameReader(Generic[T]):
    """Cuts a stream of bytes into messages."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._decode = decoder.decode
        self._rest = bytearray()

    def feed(self, received: bytes) -> Iterator[T]:
        """Iterate to the end over the messages that `received` completes; what is left over waits for the next call.

        Raises:
            FrameTooLarge: a frame announces more than `FRAME_LIMIT` bytes.
            msgspec.DecodeError: a frame is not what the decoder expects.
        """
        rest = self._rest
        rest += received
        start, end = 0, len(rest)
        try:
            while end - start >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(rest, start)
                if size > FRAME_LIMIT:
                    raise FrameTooLarge(size)
                body = start + _LENGTH.size
                if end - body < size:
                    return
                start = body + size
                yield self._decode(rest[body:start])
        finally:
            del rest[:start]


class Mailbox(asyncio.Protocol, Generic[T]):
    """One end of a connection between two processes that talk in frames.

    `on_message` gets each message, in order; some may come before whoever connects the mailbox goes on. `on_closed`
    is called once, with the error that closed it, or None when either side closed it in peace. An error that
    `on_message` raises closes the mailbox. All methods but `send_threadsafe` belong to the loop's thread.
    """

    def __init__(
        self,
        decoder: msgspec.msgpack.Decoder[T],
        on_message: Callable[[T], None],
        on_closed: Callable[[Exception | None], None],
    ) -> None:
        self._reader = FrameReader(decoder)
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._error: Exception | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.closing = False  # closed, or about to be, by this side
        self.write_paused = False  # the other side reads more slowly than this one sends: hold back if you can

    async def connect(self, sock: socket.socket) -> None:
        """Take over the connected `sock`."""
        await self._loop.create_connection(lambda: self, sock=sock)

    def send(self, message: object) -> None:
        """Encode `message` now, write it with the others of this turn of the loop. Once closed, it goes nowhere.

        Raises:
            FrameTooLarge, TypeError: see `frame`; nothing is sent.
        """
        self._queue(frame(message))

    def send_threadsafe(self, message: object) -> None:
        """The same from any thread; the message is encoded on the thread that calls."""
        self._loop.call_soon_threadsafe(self._queue, frame(message))

    @property
    def closed(self) -> bool:
        """Whether nothing comes or goes any more."""
        return self._ended.done()

    async def close(self) -> None:
        """Send what was to be sent, close, and return when that is done: the other side may take its time to read."""
        self.closing = True
        self._flush()
        if self._transport is not None:
            self._transport.close()
            await asyncio.shield(self._ended)

    def abort(self) -> None:
        """Close at once; unsent messages are lost."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()
        elif not self.closed:
            self._ended.set_result(None)

    def _queue(self, encoded: bytes) -> None:
        if self.closing or self.closed:
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(encoded)

    def _flush(self) -> None:
        if self._transport is None or not self._unsent:
            return
        encoded = b"".join(self._unsent)
        self._unsent.clear()
        self._transport.write(encoded)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                self._on_message(message)
        except Exception as error:
            self._error = error
            if self._transport is not None:
                self._transport.abort()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self._ended.set_result(None)
        self._unsent.clear()
        self._on_closed(self._error or exc)
