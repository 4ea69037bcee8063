"""Mailboxes, each over one end of a socket: what they refuse, when they pause, how they close."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from queued_tasks.runtime.framing import FRAME_LIMIT, FrameReader, FrameTooLarge, Mailbox, frame
from tests.talk import DECODER, LIMIT, on_uvloop, within_limit


class End:
    """A mailbox, what it received, and how it closed."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.closed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.mailbox = Mailbox(DECODER, self.received.put_nowait, self.closed.set_result)

    async def next(self) -> Any:
        async with asyncio.timeout(LIMIT):
            return await self.received.get()

    async def how_it_closed(self) -> Exception | None:
        async with asyncio.timeout(LIMIT):
            return await self.closed


@asynccontextmanager
async def one_end() -> AsyncIterator[tuple[End, socket.socket]]:
    """A mailbox and the bare socket at the other end."""
    mine, theirs = socket.socketpair()
    end = End()
    with theirs:
        await end.mailbox.connect(mine)
        yield end, theirs
        end.mailbox.abort()
        await end.how_it_closed()


def test_messages_may_come_in_any_pieces() -> None:
    reader = FrameReader(DECODER)
    messages = [1, "two", [3, 3, 3], b"4" * 1000]
    stream = b"".join(map(frame, messages))
    assert [message for byte in stream for message in reader.feed(bytes([byte]))] == messages


def test_a_message_over_the_limit_is_refused_by_its_sender() -> None:
    with pytest.raises(FrameTooLarge, match="exceeds the limit"):
        frame(bytes(FRAME_LIMIT + 1))


@on_uvloop
async def test_a_frame_over_the_limit_closes_the_mailbox() -> None:
    async with one_end() as (end, theirs):
        theirs.send((FRAME_LIMIT + 1).to_bytes(4, "big"))
        assert isinstance(await end.how_it_closed(), FrameTooLarge)


@on_uvloop
async def test_a_malformed_frame_closes_the_mailbox() -> None:
    async with one_end() as (end, theirs):
        theirs.send(b"\0\0\0\1\xc1")
        assert isinstance(await end.how_it_closed(), msgspec.DecodeError)


@on_uvloop
async def test_an_error_of_the_receiver_closes_the_mailbox() -> None:
    def refuse(message: object) -> None:
        raise LookupError(message)

    mine, theirs = socket.socketpair()
    closed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    with theirs:
        await Mailbox(DECODER, refuse, closed.set_result).connect(mine)
        theirs.send(frame("something"))
        async with asyncio.timeout(LIMIT):
            assert isinstance(await closed, LookupError)


@on_uvloop
async def test_the_messages_of_one_turn_are_one_write() -> None:
    async with one_end() as (end, theirs):
        end.mailbox.send("first")
        end.mailbox.send("second")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert theirs.recv(1000) == frame("first") + frame("second")


@on_uvloop
async def test_a_reader_that_does_not_read_pauses_the_writer_until_it_reads() -> None:
    async with one_end() as (end, theirs):
        theirs.setblocking(False)
        resumed = asyncio.Event()
        paused: list[bool] = []

        def read() -> None:
            paused.append(end.mailbox.write_paused)
            theirs.recv(1024 * 1024)
            if not end.mailbox.write_paused:
                resumed.set()

        end.mailbox.send(bytes(4 * 1024 * 1024))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asyncio.get_running_loop().add_reader(theirs, read)
        await within_limit(resumed.wait())
        asyncio.get_running_loop().remove_reader(theirs)
        assert paused[0]


@on_uvloop
async def test_another_thread_can_send() -> None:
    async with one_end() as (end, theirs):
        await asyncio.to_thread(end.mailbox.send_threadsafe, "from a thread")
        await asyncio.sleep(0)
        received = await asyncio.to_thread(theirs.recv, 1000)
        assert received == frame("from a thread")


@on_uvloop
async def test_close_sends_what_was_to_be_sent() -> None:
    mine, theirs = socket.socketpair()
    sender, receiver = End(), End()
    await sender.mailbox.connect(mine)
    await receiver.mailbox.connect(theirs)
    large = bytes(8 * 1024 * 1024)
    sender.mailbox.send(large)
    await within_limit(sender.mailbox.close())
    assert await receiver.next() == large
    assert await receiver.how_it_closed() is None


@on_uvloop
async def test_a_closed_mailbox_sends_nothing() -> None:
    async with one_end() as (end, theirs):
        await end.mailbox.close()
        end.mailbox.send("too late")
        assert theirs.recv(1000) == b""
