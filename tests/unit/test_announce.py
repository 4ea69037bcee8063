"""What is announced, and in how many words."""

from __future__ import annotations

from typing import Any, cast

from queued_tasks.runtime.announce import Announcer
from queued_tasks.runtime.store.link import Link
from tests.waiting import wait_until


class _Said:
    """A link that keeps what is to be notified."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []

    async def fetch(self, _statement: str, topics: list[str], payloads: list[str]) -> list[Any]:
        self.messages += zip(topics, payloads, strict=True)
        return []


async def test_a_word_that_many_say_at_once_is_said_once() -> None:
    said = _Said()
    announcer = Announcer(cast("Link", said), "wake")
    announcer.ended({"wake": ["delayed"]})
    announcer.ended({"wake": ["delayed"], "waiter": ["a", "b"]})
    await wait_until(lambda: len(said.messages) > 1)
    assert said.messages == [("wake", "delayed"), ("waiter", "a b")]
    await announcer.close()
