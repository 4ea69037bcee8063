"""What a task in a worker process tells its supervisor: context, log lines, tasks that it adds, questions."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from queued_tasks.runtime import wire
from tests.fake_supervisor import TASKS, worker

KINDS = pytest.mark.parametrize(("kind", "suffix"), [("async", ""), ("sync", "_plainly")])


# ---- context, current task, logs


@KINDS
async def test_the_last_context_travels_with_the_end(kind: str, suffix: str) -> None:
    async with worker(kind) as supervisor:
        end = await supervisor.result_of(f"context_of_mine{suffix}", 2, context='{"count": 1, "other": 0}')
    assert end.result == "1"
    assert json.loads(end.context or "") == {"count": 2, "other": 0}


@pytest.mark.parametrize(
    ("kind", "function", "last"), [("async", "context_then_sleep", 99), ("sync", "context_then_spin", 1)]
)
async def test_a_context_is_written_back_while_the_task_runs_and_only_its_last_value(
    kind: str, function: str, last: int
) -> None:
    async with worker(kind) as supervisor:
        no = supervisor.run(function)
        frame = await supervisor.first(wire.ContextChanged)
        supervisor.process.send(wire.Interrupt(no, "stop"))
        end = await supervisor.end_of(no)
    assert (frame.no, json.loads(frame.value)) == (no, {"number": last})
    assert end.context is None


@KINDS
async def test_a_task_knows_itself(kind: str, suffix: str) -> None:
    async with worker(kind) as supervisor:
        attempt = supervisor.attempt(f"who_am_i{suffix}", name="its name", attempt=3)
        supervisor.process.send(wire.Run([attempt]))
        end = await supervisor.end_of(attempt.no)
    assert json.loads(end.result or "") == [str(UUID(bytes=attempt.id)), "its name", 3, True]


async def test_what_a_task_logs_comes_before_its_end_however_it_was_logged() -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of("log_all_ways")
        lines = [(line.level, line.logger, line.message) for line in supervisor.lines]
        kinds = [type(frame) for frame in supervisor.frames]
    assert lines == [
        (10, TASKS, "own debug"),
        (30, "somebody.else", "plain warning"),
        (20, TASKS, "loguru info"),
        (40, "somebody.else", "with a traceback"),
        (20, "somebody.else", lines[4][2]),
        (20, "somebody.else", "?\N{REPLACEMENT CHARACTER}"),
    ]
    assert lines[4][2].startswith("%d (its arguments don't fit")
    assert "KeyError" in (supervisor.lines[3].exception or "")
    assert {line.no for line in supervisor.lines} == {end.no}
    assert kinds.index(wire.Logged) < kinds.index(wire.Ended)


async def test_the_server_s_own_log_gets_what_is_not_only_for_debugging() -> None:
    async with worker() as supervisor:
        await supervisor.result_of("log_all_ways")
        messages = [record.message for record in supervisor.all(wire.Record)]
    assert "loguru info" in messages
    assert "own debug" not in messages


async def test_a_plain_function_logs_like_others() -> None:
    async with worker("sync") as supervisor:
        await supervisor.result_of("log_plainly")
    assert [line.message for line in supervisor.lines] == ["own debug", "loguru error"]


async def test_a_line_from_a_thread_arrives_while_the_task_goes_on() -> None:
    async with worker() as supervisor:
        no = supervisor.run("log_then_sleep")
        assert await supervisor.said("from a thread") == no


async def test_what_is_logged_beyond_all_bounds_is_counted() -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of("log_much", 10_500)
    assert len(supervisor.lines) == 10_001
    assert supervisor.lines[-1].message.startswith("500 log lines were dropped")
    assert supervisor.lines[-1].no == end.no


# ---- the queue from inside


async def test_a_task_that_is_added_travels_with_the_end_of_its_adder() -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of("add_tasks", False)
    (added,) = end.added or []
    assert (added.function, added.args, str(UUID(bytes=added.id))) == (
        f"{TASKS}:add",
        "[1,2]",
        json.loads(end.result or ""),
    )


async def test_a_plain_function_adds_tasks_too() -> None:
    async with worker("sync") as supervisor:
        end = await supervisor.result_of("add_task_plainly")
    assert [added.function for added in end.added or []] == [f"{TASKS}:add"]


async def test_a_task_that_fails_adds_nothing() -> None:
    async with worker() as supervisor:
        assert (await supervisor.result_of("add_then_fail")).added is None


async def test_a_task_that_is_awaited_is_written_at_once_under_the_same_id_in_every_run() -> None:
    async with worker() as supervisor:
        attempt = supervisor.attempt("add_tasks", True)
        ids = []
        for call in (1, 2):
            attempt.no += 100
            supervisor.process.send(wire.Run([attempt]))
            asked = await supervisor.until(
                lambda call=call: next((each for each in supervisor.all(wire.Call) if each.call == call), None)  # type: ignore[misc]  # mypy can't infer a default's type
            )
            supervisor.process.send(wire.Answer(asked.call, "{}"))
            end = await supervisor.end_of(attempt.no)
            assert (asked.verb, end.added) == ("write", None)
            ids += [added.id for added in asked.added or []]
    assert len(ids) == 2
    assert len({*ids}) == 1


@pytest.mark.parametrize(
    ("answer", "outcome", "name"),
    [
        (wire.Answer(1, "17"), "done", None),
        (wire.Answer(1, None, "DatabaseUnavailable", "away"), "failed", "DatabaseUnavailable"),
    ],
)
async def test_a_question_is_answered_by_the_supervisor(answer: wire.Answer, outcome: str, name: str | None) -> None:
    async with worker() as supervisor:
        no = supervisor.run("ask_for_pending")
        assert (await supervisor.first(wire.Call)).verb == "pending"
        supervisor.process.send(answer)
        end = await supervisor.end_of(no)
    assert (end.outcome, end.exception_name) == (outcome, name)


async def test_an_async_hook_of_what_a_plain_function_adds_runs_on_the_loop_of_the_start_hooks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_HOOKS", "1")
    async with worker("sync") as supervisor:
        no = supervisor.run("tests.apps.inside:add_and_flush", executor=1)
        asked = await supervisor.first(wire.Call)
        supervisor.process.send(wire.Answer(asked.call, "{}"))
        end = await supervisor.end_of(no)
    (added,) = asked.added or []
    assert (end.outcome, added.context) == ("done", '{"thread":"MainThread"}')


@pytest.mark.parametrize(("kind", "function"), [("async", "add_quietly"), ("sync", "add_plainly")])
async def test_the_hooks_of_the_enqueuer_are_called_for_what_a_task_adds(
    kind: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_HOOKS", "1")
    async with worker(kind, app="tests.apps.inside:give") as supervisor:
        end = await supervisor.result_of(f"tests.apps.inside:{function}")
    (added,) = end.added or []
    assert added.context == '{"thread":"MainThread"}'
    assert "added add with {'thread': 'MainThread'}" in [line.message for line in supervisor.lines]


@pytest.mark.parametrize(("kind", "function"), [("async", "give"), ("sync", "keep_until_the_end")])
async def test_a_hook_is_told_where_the_task_belongs(kind: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_HOOKS", "1")
    async with worker(kind, app="tests.apps.inside:give") as supervisor:
        arguments = (1,) if kind == "async" else ()
        end = await supervisor.result_of(f"tests.apps.inside:{function}", *arguments, channel="mail", priority=-3)
    assert json.loads(end.context or "")["place"] == ["mail", -3]


# ---- contexts that many threads change


@pytest.mark.parametrize(("kind", "executor"), [("sync", 1), ("async", 2)])
async def test_no_change_of_a_context_overtakes_another_and_the_last_one_comes(kind: str, executor: int) -> None:
    function = "tests.apps.inside:churn" if kind == "sync" else "tests.apps.inside:churn_on_thread"
    async with worker(kind) as supervisor:
        end = await supervisor.result_of(function, 100, 4, executor=executor)
    frames = [frame.value for frame in supervisor.frames if isinstance(frame, wire.ContextChanged | wire.Commit)]
    numbers = [json.loads(value).get("number", 0) for value in (*frames, end.context) if value is not None]
    assert end.outcome == "done"
    assert len(numbers) > 10
    assert numbers == sorted(numbers)
    assert numbers[-1] == 400


async def test_threads_of_a_plain_function_write_its_context() -> None:
    async with worker("sync") as supervisor:
        end = await supervisor.result_of("note_in_threads")
    assert json.loads(end.result or "") == {"thread": 1, "pool": {"0": 0, "1": 1}}


async def test_a_pool_that_tasks_share_writes_the_context_of_whoever_handed_it_the_work() -> None:
    async with worker() as supervisor:
        numbers = {name: supervisor.run("note_in_pool", name) for name in "abcd"}
        found = {name: (await supervisor.end_of(number)).result for name, number in numbers.items()}
    assert found == {name: f'{{"{name}":1}}' for name in "abcd"}
