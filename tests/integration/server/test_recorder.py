"""What becomes of contexts and log lines that PostgreSQL refuses, and of those who wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from queued_tasks import QueuedTasks
from queued_tasks.actors.messages import Commit, RecorderMessage, Writes
from queued_tasks.actors.recorder import Recorder
from queued_tasks.actors.vitals import Vitals
from queued_tasks.runtime import wire
from queued_tasks.runtime.actor import Exited, Tree
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.task import Claimed, ContextWrite, LogWrite, ServerId
from tests.apps import work
from tests.servers import Server
from tests.store import Store

LIMIT = 30  # seconds
REFUSED = 40_000  # a level that is no smallint


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        yield await Store.open(database, stack)


async def record(store: Store, server: ServerId, *messages: RecorderMessage) -> list[Exited]:
    """Let a recorder receive these, and stop it; how often it failed."""
    exits: list[Exited] = []
    async with Tree(exits.append) as tree:
        recorder = tree.start("recorder", lambda: Recorder(store.tasks, server, Vitals()))
        for message in messages:
            recorder.tell(message)
    return exits


def line(it: Claimed, level: int, message: str) -> LogWrite:
    return LogWrite(it, 0.0, level, "app", message, None)


async def test_only_what_is_refused_is_lost(store: Store) -> None:
    await store.add(3)
    server = await store.server()
    one, two, three = await store.claim(server)
    contexts = [ContextWrite(one, 1, "{}"), ContextWrite(two, 1, "no JSON"), ContextWrite(three, 1, "{}")]
    logs = [line(one, 20, "good"), line(three, REFUSED, "bad"), line(two, 20, "good, too")]
    assert await record(store, server, Writes(contexts, logs)) == []
    assert {*await store.rows("select id from queued_tasks.context")} == {one.id, three.id}
    assert {*await store.rows("select task_id, message from queued_tasks.log")} == {
        (one.id, "good"),
        (two.id, "good, too"),
    }


async def test_who_waits_for_a_context_that_is_refused_is_told_and_the_others_have_theirs(store: Store) -> None:
    await store.add(2)
    server = await store.server()
    good, bad = await store.claim(server)
    answers: dict[int, wire.Answer] = {}

    def answer(answer: wire.Answer) -> None:
        answers[answer.call] = answer

    commits = [Commit(ContextWrite(bad, 1, "no JSON"), 1, answer), Commit(ContextWrite(good, 1, "{}"), 2, answer)]
    assert await record(store, server, *commits) == []
    assert {call: answer.error for call, answer in answers.items()} == {1: "SerializationError", 2: None}
    assert str(bad.id) in (answers[1].text or "")
    assert await store.rows("select id from queued_tasks.context") == [good.id]


async def test_who_waits_for_a_context_is_told_when_the_schema_does_not_fit(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.value("drop function queued_tasks.write_context")
    answers: list[wire.Answer] = []
    assert await record(store, server, Commit(ContextWrite(it, 1, "{}"), 1, answers.append)) == []
    assert [answer.error for answer in answers] == ["SchemaOutdated"]


async def test_a_context_that_still_waits_is_answered_when_the_recorder_stops(store: Store) -> None:
    await store.one()
    it = await store.claim_one(await store.server())
    await store.session.connection.close()
    answers: list[wire.Answer] = []
    await record(store, ServerId(new_id()), Commit(ContextWrite(it, 1, "{}"), 1, answers.append))
    assert [answer.error for answer in answers] == ["DatabaseUnavailable"]


async def test_a_level_beyond_all_reason_costs_neither_the_line_nor_the_result(
    server: Server, tasks: QueuedTasks
) -> None:
    ref = tasks.add_task(work.log_at, [REFUSED, 10**30])
    assert await ref.wait(LIMIT) == "logged"
    assert [line.level for line in await tasks.get_logs(ref.id)] == ["32767", "32767"]
