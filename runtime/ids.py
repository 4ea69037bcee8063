"""Ids of new tasks: UUIDv7, in the order in which they are made."""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Iterator
from itertools import count
from uuid import UUID, SafeUUID

_WORDS = struct.Struct("512Q")

_last = 0
_words: list[int] = []  # random ones, drawn many at a time
_new = object.__new__
_set_int, _set_safety, _UNKNOWN = UUID.__dict__["int"].__set__, UUID.__dict__["is_safe"].__set__, SafeUUID.unknown


def new_id() -> UUID:
    """A UUIDv7 behind all that this process has made so far. From any thread.

    Its 60 bits of time are milliseconds and their 4096ths. Should two threads come to the same ones, 62 random bits
    tell their ids apart.
    """
    return _made(_first_of(1), _word())


def new_ids(count: int) -> list[UUID]:
    """So many of them, one behind the other: a whole batch reads the clock once."""
    first = _first_of(count)
    words = struct.unpack(f"{count}Q", os.urandom(8 * count))
    return [*map(_made, range(first, first + count), words)]


class DerivedIds:
    """Ids that a second run of the same task comes to as well, each made of what it is for.

    Whatever that run does first, or leaves out because it was done before: an ordinal would give it the ids of others.
    """

    def __init__(self, task: UUID) -> None:
        self._task = task
        self._alike: dict[bytes, Iterator[int]] = {}

    def next(self, what: bytes) -> UUID:
        """A UUIDv7, with the time of that task, for the next thing in this run that is `what`. From any thread."""
        digest = hashlib.sha256(self._task.bytes + what).digest()[:16]
        number = next(self._alike.setdefault(digest, count()))
        made = bytearray(self._task.bytes[:6] + hashlib.sha256(digest + number.to_bytes(8, "big")).digest()[:10])
        made[6] = made[6] & 0x0F | 0x70
        made[8] = made[8] & 0x3F | 0x80
        return UUID(bytes=bytes(made))


def plain_id(id: UUID) -> UUID:
    """An id of the type that everybody knows: asyncpg reads them as one of its own, which orjson, for one, refuses."""
    return UUID(int=id.int)


def _first_of(count: int) -> int:
    """The time of the first of so many ids, which nobody else's come behind until the last of them."""
    global _last  # a lock would cost as much as the id
    now = (time.time_ns() << 6) // 15_625
    if now <= _last:
        now = _last + 1
    _last = now + count - 1
    return now


def _made(time: int, word: int) -> UUID:
    high = (time & ~0xFFF) << 4 | 0x7000 | time & 0xFFF
    id = _new(UUID)  # its constructor takes most of a microsecond to look at what it is given
    _set_int(id, high << 64 | 2 << 62 | word >> 2)
    _set_safety(id, _UNKNOWN)
    return id


def _word() -> int:
    while True:
        try:
            return _words.pop()  # one step for all threads: nobody else gets this one
        except IndexError:
            _words.extend(_WORDS.unpack(os.urandom(_WORDS.size)))


# a child that was forked must not give out the words that its parent has drawn
os.register_at_fork(after_in_child=_words.clear)
