"""Ends that take PostgreSQL longer to record than a call may take."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from queued_tasks.actors.announcements import Announcements
from queued_tasks.actors.messages import Opened, Outcomes, SettlerMessage, Tick
from queued_tasks.actors.settler import Settler
from queued_tasks.actors.vitals import Vitals
from queued_tasks.runtime.actor import ActorRef, Exited, Tree
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.servers import ServerStore
from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import LogWrite
from tests.store import SCHEMA, Store, ended
from tests.waiting import wait_until

SLOW = """
create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(1); return new; end $$;
create trigger slow before insert on queued_tasks.result for each row when (new.result::text = '"slow"')
execute function slow()
"""


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        yield await Store.open(database, stack)


async def test_an_end_that_takes_too_long_keeps_no_other_from_being_recorded_and_gets_more_time(store: Store) -> None:
    await store.session.connection.execute(SLOW)
    tasks = await store.add(3)
    server = await store.server()
    claimed = await store.claim(server)
    ends = [ended(it, result='"slow"' if it is claimed[0] else None) for it in claimed]
    link, nobody, exits = Link(store.dsn, SCHEMA, name="settle"), ActorRef[Any]("nobody"), list[Exited]()
    async with Tree(exits.append) as tree:
        announcements = Announcements(nobody, nobody, None)
        settler: ActorRef[SettlerMessage] = tree.start(
            "settler",
            lambda: Settler(TaskStore(link), ServerStore(link), server, announcements, nobody, Vitals()),
        )
        settler.tell(Opened(claimed[0].lease, [it.id for it in claimed]))
        line = LogWrite(claimed[0], 0.0, 20, "app", "hello", None)
        settler.tell(Outcomes(ends, [], [line], [], limit=0.4))
        tree.every(settler, 0.05, Tick())
        await wait_until(lambda: all_are_done(store, tasks[1:]))
        assert await store.state(tasks[0]) == "doing"
        await wait_until(lambda: all_are_done(store, tasks))
    await link.close()
    assert exits == []
    assert (await store.count("lease"), await store.count("log")) == (0, 1)


async def all_are_done(store: Store, tasks: Any) -> bool:
    return set(await store.states(tasks)) == {"done"}
