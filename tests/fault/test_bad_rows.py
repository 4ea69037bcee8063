"""Rows that somebody put in by hand: each ends with its reason, and all others go their way."""

from __future__ import annotations

import signal
from uuid import UUID, uuid4

import asyncpg
import pytest

from queued_tasks.runtime.ids import new_id
from tests.fault.trial import Trial
from tests.servers import Rows, running_server
from tests.waiting import wait_until

LARGEST = 1_000_000_000  # number of an attempt
WORK = "tests.apps.trials:work"
STRANGE = [("no.such.module:work", "[]", None), ("tests.apps.trials:nobody", "[]", None)]
BAD = [
    ("no reference at all", "[]", None),
    ("os:system", '["true"]', None),
    (WORK, "[]", None),
    (WORK, "[1, 2, 3, 4]", None),
    (WORK, '{"not": "a list"}', None),
    (WORK, "null", None),
    (WORK, "[]", "[1]"),
    (WORK, "[]", '{"nobody": 1}'),
    (WORK, '["ledger", "not a number"]', None),
]


@pytest.fixture
async def others(trial: Trial) -> Trial:
    """Sound tasks around the bad row."""
    await trial.add(50)
    return trial


async def test_rows_that_can_not_run_fail_with_their_reason(database: str, others: Trial, rows: Rows) -> None:
    bad = [await _put(rows, *row) for row in BAD]
    await others.add(50)
    async with running_server(database):
        await others.check()
    ends = {row: await _end(rows, id) for row, id in zip(BAD, bad, strict=True)}
    assert set(ends.values()) <= {"failed InvalidTask", "failed SerializationError"}, ends


async def test_rows_of_functions_that_nobody_knows_keep_nobody_from_running(
    database: str, others: Trial, rows: Rows
) -> None:
    strange = [await _put(rows, *row) for row in STRANGE]
    await others.add(50)
    async with running_server(database):
        await wait_until(lambda: _are(rows, {"enqueued": len(strange), "done": 100}))
        assert await rows.value("select queued_tasks.clear_tasks(null, null, 10)") == len(strange)
        await others.check()


async def test_numbers_of_attempts_beyond_all_reason_are_refused_at_once(rows: Rows, trial: Trial) -> None:
    await trial.add(1)
    with pytest.raises(asyncpg.CheckViolationError):
        await rows.value("update queued_tasks.bundle set attempt = $1", LARGEST + 1)


async def test_a_task_that_fails_at_the_last_number_is_over(database: str, others: Trial, rows: Rows) -> None:
    id = await _put(rows, "tests.apps.work:fail", '["on purpose"]', None)
    await rows.value("update queued_tasks.bundle set attempt = $2 where ids = array[$1::uuid]", id, LARGEST)
    async with running_server(database):
        await others.check(ends=frozenset({"failed"}))
    assert await _end(rows, id) == "cancelled None"


async def test_a_task_at_the_last_number_does_not_keep_others_from_being_rescued(
    database: str, others: Trial, rows: Rows
) -> None:
    id = await _put(rows, WORK, f'["{others.ledger}", 60]', None)
    await rows.value("update queued_tasks.bundle set attempt = $2 where ids = array[$1::uuid]", id, LARGEST)
    async with running_server(database, name="first") as first:
        await wait_until(lambda: any(run.task == id for run in others.runs()))
        await others.add(20, 1)
        await others.under_way(10)
        others.strikes()
        first.signal(signal.SIGKILL)
        async with running_server(database, name="second"):
            await others.check()
    assert await _end(rows, id) == "cancelled None"


async def test_a_parent_that_does_not_exist(database: str, others: Trial, rows: Rows) -> None:
    id = await _put(rows, WORK, f'["{others.ledger}", 0]', None)
    parent = uuid4()
    await rows.value("delete from queued_tasks.bundle where ids = array[$1::uuid]", id)
    await rows.value("update queued_tasks.task set parents = array[$2::uuid] where id = $1", id, parent)
    await rows.value("insert into queued_tasks.dependency (parent, child) values ($1, $2)", parent, id)
    async with running_server(database):
        await others.check()
    assert await _end(rows, id) == "done None"


async def test_a_line_that_leads_to_no_task(database: str, others: Trial, rows: Rows) -> None:
    id = await _put(rows, WORK, f'["{others.ledger}", 0]', None)
    await rows.value("delete from queued_tasks.task where id = $1", id)
    async with running_server(database):
        await others.check()
    assert await _end(rows, id) == "None None"


async def test_a_forged_signature(database: str, others: Trial, rows: Rows) -> None:
    id = await _put(rows, WORK, f'["{others.ledger}", 0]', None)
    await rows.value("update queued_tasks.task set signature = '\\x00' where id = $1", id)
    async with running_server(database, secret_key="a key", allow_unsigned=WORK):
        await others.check()
    assert await _end(rows, id) == "failed SignatureError"


async def _put(rows: Rows, function: str, args: str, kwargs: str | None) -> UUID:
    """A task in line, as somebody who knows the tables may put it there."""
    id = new_id()
    await rows.value(
        "insert into queued_tasks.task "
        "(id, executor, priority, max_retries, auto_remove, function, channel, args, kwargs) "
        "values ($1, 0, 0, 3, false, $2, 'default', $3, $4)",
        id,
        function,
        args,
        kwargs,
    )
    await rows.value(
        "insert into queued_tasks.bundle (lane, ids, attempt) "
        "select l.id, array[$1::uuid], 1 from queued_tasks.lane l "
        "where l.channel = 'default' and not l.sync and not l.again and l.priority = 0",
        id,
    )
    return id


async def _are(rows: Rows, states: dict[str, int]) -> bool:
    return await rows.states() == states


async def _end(rows: Rows, id: UUID) -> str:
    state = await rows.value("select state::text from queued_tasks.result where id = $1", id)
    return f"{state} {await rows.value('select exception_name from queued_tasks.result where id = $1', id)}"


async def _is_rescued(rows: Rows) -> bool:
    return bool(await rows.value("select count(*) from queued_tasks.server where end_reason = 'lost'"))
