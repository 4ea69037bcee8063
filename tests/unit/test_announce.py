"""What is announced, and in how many words."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from queued_tasks.runtime import announce
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


async def test_pauses_grow_while_many_tasks_come(monkeypatch: pytest.MonkeyPatch) -> None:
    said, counts, pauses = _Said(), iter([40, 40, 40, 5]), list[float]()
    announcer = Announcer(cast("Link", said), "wake")

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        announcer.lined({7: count} if (count := next(counts, 0)) else {})

    monkeypatch.setattr(announce, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    announcer.lined({7: 1})
    assert announcer._running
    await announcer._running
    assert pauses == [0.002, 0.004, 0.008, 0.008, 0.002]
    assert [payload.split()[0] for _, payload in said.messages] == ["7:1", "7:40", "7:40", "7:40", "7:5"]
    await announcer.close()
