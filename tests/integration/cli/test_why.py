"""What `queued-tasks why` answers, for tasks in every situation."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from queued_tasks.integrations.cli.reasons import Reason, reason
from queued_tasks.runtime.gates import parse_limits
from queued_tasks.runtime.store.gates import GateStore
from queued_tasks.runtime.store.inquiry import inquire
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.task import Executor
from tests.command import Rows, queued_tasks
from tests.databases import connected

HOUR = timedelta(hours=1)
TTL = timedelta(seconds=15)
FULL = {"workers": 1, "slots": 10, "busy": 10}
FREE = {"workers": 1, "slots": 10, "busy": 0}
NONE = {"workers": 0, "slots": 0, "busy": 0}


class Queue(Rows):
    """Rows, and what `why` makes of them."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._link = link

    async def why(self, id: UUID, *, lease_ttl: timedelta = TTL) -> Reason:
        seen = await inquire(self._link, id, lease_ttl=lease_ttl)
        assert seen is not None
        return reason(seen)

    async def limit(self, channel: str, limits: str) -> None:
        await GateStore(self._link).change(channel, lambda _: parse_limits(channel, limits))


@pytest.fixture
async def queue(database: str) -> AsyncIterator[Queue]:
    link = Link(database, "queued_tasks", name="test")
    try:
        yield Queue(link)
    finally:
        await link.close()


async def change(database: str, statement: str, *arguments: object) -> None:
    async with connected(database) as connection:
        await connection.execute(statement, *arguments)


def is_due(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


# ---- it has ended


async def test_done(queue: Queue) -> None:
    await queue.add()
    found = await queue.why(await queue.run(await queue.serve()))
    assert (found.word, found.cure) == ("done", "")
    assert found.sentence.endswith("on web-1, and took 0.25 s.")


async def test_failed_with_the_cure_of_its_exception(queue: Queue) -> None:
    server = await queue.serve()
    await queue.add()
    found = await queue.why(await queue.fail(server))
    assert "ValueError: no such address" in found.sentence
    assert "tasks show" in found.cure


@pytest.mark.parametrize(
    ("exception", "cure"),
    [
        ("InvalidTask", "QUEUE_ALLOWED_MODULES"),
        ("SignatureError", "QUEUE_SECRET_KEY"),
        ("TaskTimeout", "a longer timeout"),
        ("WorkerDied", "memory"),
    ],
)
async def test_what_the_queue_itself_refused_or_ended_has_a_cure_of_its_own(
    queue: Queue, exception: str, cure: str
) -> None:
    await queue.add()
    error = {"exception_name": exception, "exception_message": "no"}
    id = await queue.run(await queue.serve(), "failed", **error)
    assert cure in (await queue.why(id)).cure


async def test_a_child_of_what_failed_names_the_parent(queue: Queue) -> None:
    parent = await queue.add()
    child = await queue.add(parents=(parent,))
    await queue.fail(await queue.serve())
    found = await queue.why(child)
    assert (found.word, f"retry {parent} --subtree" in found.cure) == ("failed", True)


async def test_cancelled_with_the_reason(queue: Queue, database: str) -> None:
    id = await queue.add()
    await queued_tasks("tasks", "cancel", id, "--yes", database=database)
    found = await queue.why(id)
    assert (found.word, f"retry {id}" in found.cure) == ("cancelled", True)


async def test_stopped(queue: Queue) -> None:
    await queue.add()
    id = await queue.run(await queue.serve(), "stopped", delay=math.inf)
    assert (await queue.why(id)).word == "stopped"


# ---- it runs


async def test_running_where_and_since_when_and_how_long_silent(queue: Queue) -> None:
    await queue.add()
    found = await queue.why(await queue.run(await queue.serve(), None))
    assert (found.word, found.facts["server"]) == ("running", "web-1")
    assert "on web-1 for" in found.sentence
    assert "its server's last beat was" in found.sentence


async def test_running_on_a_server_that_is_silent(queue: Queue) -> None:
    await queue.add()
    id = await queue.run(await queue.serve(), None)
    found = await queue.why(id, lease_ttl=timedelta(microseconds=1))
    assert (found.word, "start" in found.cure) == ("server_lost", True)


async def test_running_although_somebody_wants_it_cancelled(queue: Queue, database: str) -> None:
    await queue.add()
    id = await queue.run(await queue.serve(), None)
    await queued_tasks("tasks", "cancel", id, "--yes", database=database)
    assert "wanted to cancel it" in (await queue.why(id)).sentence


# ---- it waits for others, or for its time


async def test_waiting_for_parents_with_their_states(queue: Queue) -> None:
    first, second = await queue.add("app:first"), await queue.add("app:second")
    child = await queue.add(parents=(first, second))
    await queue.run(await queue.serve(), None)
    found = await queue.why(child)
    assert found.word == "waiting"
    assert f"first ({first}) is doing, second ({second}) is enqueued" in found.sentence
    assert f"why {first}" in found.cure


async def test_waiting_for_parents_that_have_ended(queue: Queue, database: str) -> None:
    parent = await queue.add()
    child = await queue.add(parents=(parent,))
    await change(database, "insert into queued_tasks.result (id, state, attempt) values ($1, 'done', 1)", parent)
    await queue.serve()
    assert (await queue.why(child)).word == "parents_ended"


async def test_not_due_yet(queue: Queue) -> None:
    found = await queue.why(await queue.add(run_at=is_due(3_600)))
    assert (found.word, found.sentence) == ("not_due", "It is not due yet: it may run in 60 min.")


async def test_never_due(queue: Queue, database: str) -> None:
    id = await queue.add(run_at=is_due(3_600))
    await change(database, "update queued_tasks.delayed set run_at = 'infinity'")
    assert (await queue.why(id)).word == "never_due"


async def test_to_be_retried_later(queue: Queue) -> None:
    await queue.add()
    error = {"exception_name": "ValueError", "exception_message": "no such address"}
    found = await queue.why(await queue.run(await queue.serve(), "failed", delay=60.0, **error))
    assert found.word == "retry_later"
    assert "attempt 1 failed" in found.sentence
    assert "(1 of 4 tries used): ValueError: no such address." in found.sentence


async def test_expired(queue: Queue) -> None:
    assert (await queue.why(await queue.add(expires_at=is_due(-1)))).word == "expired"


# ---- nobody takes it


async def test_no_server(queue: Queue) -> None:
    found = await queue.why(await queue.add())
    assert (found.word, found.cure) == ("no_server", "Start a server: `queued-tasks start --app main:app`.")


async def test_only_silent_servers(queue: Queue) -> None:
    id = await queue.add()
    await queue.serve()
    found = await queue.why(id, lease_ttl=timedelta(microseconds=1))
    assert (found.word, "web-1" in found.sentence) == ("no_server", True)


@pytest.mark.parametrize(
    ("state", "details", "cure"),
    [
        ("starting", {}, "once their workers are up"),
        ("drained", {}, "servers resume web-1"),
        ("blocked", {"error": "Traceback\nModuleNotFoundError: No module named 'shop'"}, "No module named 'shop'"),
    ],
)
async def test_no_server_that_takes_tasks(queue: Queue, state: str, details: Any, cure: str) -> None:
    id = await queue.add()
    await queue.serve(state=state, details=details)
    found = await queue.why(id)
    assert (found.word, f"web-1 is {state}" in found.sentence, cure in found.cure) == ("none_claims", True, True)


async def test_no_server_that_takes_the_channel(queue: Queue) -> None:
    id = await queue.add(channel="gpu")
    await queue.serve(details={"channels": ["mail"]})
    found = await queue.why(id)
    assert (found.word, "--channels gpu" in found.cure) == ("channel_not_taken", True)


async def test_a_channel_that_every_server_excludes(queue: Queue) -> None:
    id = await queue.add(channel="gpu")
    await queue.serve(details={"excluded_channels": ["gpu"]})
    assert (await queue.why(id)).word == "channel_not_taken"


async def test_a_function_that_no_server_knows(queue: Queue) -> None:
    id = await queue.add("app:gone")
    await queue.decline(await queue.serve(), "app:gone", "the module app has no gone")
    found = await queue.why(id)
    assert (found.word, "the module app has no gone" in found.sentence) == ("function_not_known", True)


async def test_a_function_that_another_server_may_know(queue: Queue) -> None:
    id = await queue.add("app:gone")
    await queue.decline(await queue.serve(), "app:gone", "the module app has no gone")
    await queue.serve("web-2")
    assert (await queue.why(id)).word == "soon"


async def test_no_worker_for_its_kind_of_function(queue: Queue) -> None:
    id = await queue.add(executor=Executor.SYNC)
    await queue.serve(details={"kinds": {"async": FREE, "sync": NONE}})
    assert (await queue.why(id)).word == "no_workers"


async def test_all_slots_busy_and_how_many_are_ahead(queue: Queue) -> None:
    await queue.serve(details={"kinds": {"async": FULL, "sync": FREE}})
    await queue.add()
    await queue.add()
    found = await queue.why(await queue.add())
    assert found.word == "all_busy"
    assert found.sentence == "All 10 slots for async def functions are busy. 2 tasks of its line are ahead of it."


@pytest.mark.parametrize(
    ("kind", "word", "said"),
    [
        (FULL, "all_busy", "All 10 slots for async def functions are busy on servers that can run it"),
        (NONE, "no_workers", "No server that can run it has a worker"),
    ],
)
async def test_room_on_servers_that_can_not_run_it_is_none(
    queue: Queue, kind: dict[str, int], word: str, said: str
) -> None:
    await queue.serve("gpu-1", details={"kinds": {"async": kind}, "channels": ["gpu"]})
    await queue.serve("web-1", details={"kinds": {"async": FREE}, "excluded_channels": ["gpu"]})
    old = await queue.serve("gpu-2", details={"kinds": {"async": FREE}, "channels": ["gpu"]})
    await queue.decline(old, "app:train", "the module app has no train")
    found = await queue.why(await queue.add("app:train", channel="gpu"))
    assert (found.word, said in found.sentence) == (word, True)


async def test_no_more_are_counted_ahead_than_is_worth_it(queue: Queue, database: str) -> None:
    await queue.serve(details={"kinds": {"async": FULL}})
    await queue.add()
    await change(
        database,
        "insert into queued_tasks.bundle (lane, ids, attempt) "
        "select lane, array[gen_random_uuid()], 1 from queued_tasks.bundle, generate_series(1, 2000)",
    )
    assert "1,000 or more tasks of its line are ahead" in (await queue.why(await queue.add())).sentence


# ---- its channel has limits


async def test_the_channel_is_paused(queue: Queue) -> None:
    await queue.serve()
    await queue.limit("mail", "0")
    found = await queue.why(await queue.add(channel="mail"))
    assert (found.word, "channels resume mail" in found.cure) == ("paused", True)


async def test_the_channel_is_full(queue: Queue) -> None:
    server = await queue.serve()
    await queue.limit("mail", "1")
    await queue.add(channel="mail")
    await queue.run(server, None)
    found = await queue.why(await queue.add(channel="mail"))
    assert (found.word, "is full: 1 of its tasks run, 1 may" in found.sentence) == ("channel_full", True)


async def test_the_channel_is_full_on_every_server(queue: Queue) -> None:
    server = await queue.serve()
    await queue.limit("mail", "1/server")
    await queue.add(channel="mail")
    await queue.run(server, None)
    id = await queue.add(channel="mail")
    assert "full on every server" in (await queue.why(id)).sentence
    await queue.serve("web-2")
    assert (await queue.why(id)).word == "soon"


async def test_the_key_has_as_many_as_it_may(queue: Queue) -> None:
    server = await queue.serve()
    await queue.limit("sync", "10/key:1")
    await queue.add(channel="sync", key="acme")
    await queue.run(server, None)
    found = await queue.why(await queue.add(channel="sync", key="acme"))
    assert (found.word, "acme" in found.sentence) == ("key_full", True)
    assert (await queue.why(await queue.add(channel="sync", key="other"))).word == "soon"


async def test_the_rate_is_used_up(queue: Queue) -> None:
    server = await queue.serve()
    await queue.limit("mail", "@1/h")
    await queue.add(channel="mail")
    await queue.run(server)
    found = await queue.why(await queue.add(channel="mail"))
    assert (found.word, "rate of 1/h: the next task starts in 60 min" in found.sentence) == ("rate", True)


# ---- the rest


async def test_nothing_is_in_its_way(queue: Queue) -> None:
    await queue.serve()
    found = await queue.why(await queue.add())
    assert (found.word, found.sentence) == ("soon", "Nothing is in its way. It is the next in its line.")


async def test_posted_in_a_transaction_and_about_to_be_lined_up(queue: Queue, database: str) -> None:
    await queue.serve()
    async with connected(database) as connection:
        id = await connection.fetchval("select queued_tasks.enqueue('app:send')")
    found = await queue.why(id)
    assert found.sentence == "It is due: a server is about to put it into its line."


async def test_standing_in_no_line(queue: Queue, database: str) -> None:
    id = await queue.add()
    await change(database, "delete from queued_tasks.bundle")
    assert (await queue.why(id)).word == "nowhere"


# ---- the command


async def test_the_command_says_the_sentence_and_what_to_do(queue: Queue, database: str) -> None:
    ran = await queued_tasks("why", await queue.add(), database=database)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "send is enqueued. No server is running.\nStart a server: `queued-tasks start --app main:app`.\n"
    )


async def test_the_document_has_the_documented_fields(queue: Queue, database: str) -> None:
    ran = await queued_tasks("why", await queue.add(), "--json", database=database)
    assert list(ran.json) == ["id", "name", "state", "reason", "sentence", "cure", "facts"]
    assert (ran.json["reason"], ran.json["state"]) == ("no_server", "enqueued")


async def test_a_task_that_never_was_is_told_from_one_that_was_removed(queue: Queue, database: str) -> None:
    unknown = await queued_tasks("why", uuid4(), "--json", database=database)
    assert (unknown.code, unknown.out, "There is no task" in unknown.err) == (1, "", True)
    id = await queue.add()
    await queued_tasks("clear", "--yes", database=database)
    removed = await queued_tasks("why", id, database=database)
    assert (removed.code, "is gone" in removed.err) == (1, True)
