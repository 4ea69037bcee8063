"""The attempts that wait for the main thread of a sync worker."""

from __future__ import annotations

from uuid import UUID

from queued_tasks.actors.sync_worker_main import Line
from queued_tasks.runtime import wire
from queued_tasks.runtime.current import Workplace
from tests.waiting import wait_until


async def test_what_goes_on_behind_its_time_is_late_though_nobody_has_interrupted_it() -> None:
    line = Line()
    line.workplace = Workplace(lambda _: None, object())
    line.extend([wire.Attempt(1, UUID(int=1).bytes, 1, "report", "app:report", 1, "[]", None, None, 0.0, 0, 0, 3)])
    running = line.next()
    assert running is not None
    assert line.late() == []
    running.begin()
    await wait_until(lambda: line.late() == [1])
