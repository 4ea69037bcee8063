"""How many log lines the recorder says were lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import pytest
from loguru import logger

from queued_tasks.actors.messages import Writes
from queued_tasks.actors.recorder import Recorder
from queued_tasks.actors.vitals import Vitals
from queued_tasks.runtime.store.link import NoRoom
from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import ContextWrite, LogWrite, ServerId
from tests.claimed import fresh


class Tables:
    """A store that has no room while `full`."""

    full = True

    async def record(
        self, _server: ServerId, contexts: Sequence[ContextWrite], logs: Sequence[LogWrite]
    ) -> frozenset[object]:
        if self.full and (contexts or logs):
            raise NoRoom("a disk is full")
        return frozenset()


@pytest.fixture
def said() -> Iterator[list[str]]:
    texts: list[str] = []
    sink = logger.add(texts.append, format="{message}")
    yield texts
    logger.remove(sink)


async def test_a_line_for_which_there_is_no_room_is_counted_once(said: list[str]) -> None:
    tables, claimed = Tables(), fresh()
    recorder = Recorder(cast("TaskStore", tables), ServerId(claimed.lease), Vitals())
    line = LogWrite(claimed, 0.0, 20, "app", "said", None)
    await recorder.receive(Writes([ContextWrite(claimed, 1, "{}")], [line] * 10))
    tables.full = False
    await recorder.receive(Writes([], [line]))
    assert said == ["10 log lines of tasks were lost while PostgreSQL was away or had no room\n"]
