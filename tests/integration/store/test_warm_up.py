"""Statements are tried before the first tasks wait for them."""

from __future__ import annotations

from typing import Any, cast

from queued_tasks.actors.announcements import Announcements
from queued_tasks.actors.claimer import Claimer
from queued_tasks.actors.settler import Settler
from queued_tasks.actors.vitals import Vitals
from queued_tasks.runtime.actor import ActorRef
from queued_tasks.runtime.intake import ALL
from tests.store import Store

PREPARED = "select count(*) from pg_prepared_statements where statement like '%queued_tasks.' || $1 || '(%'"


async def test_a_claimer_and_a_settler_have_tried_theirs_when_they_are_started(store: Store) -> None:
    server = await store.server()
    nobody: ActorRef[Any] = ActorRef("nobody")
    claimer = Claimer(
        store.tasks,
        server,
        nobody,
        nobody,
        Vitals(),
        ALL,
        first_pause=1.0,
        polling_interval=1.0,
        full_pass_interval=30.0,
    )
    settler = Settler(store.tasks, store.servers, server, cast("Announcements", None), nobody, Vitals())
    await claimer.started()
    await settler.started()
    assert [await store.value(PREPARED, function) for function in ("claim", "settle")] == [1, 1]
