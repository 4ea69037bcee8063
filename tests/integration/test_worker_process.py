"""Worker processes, driven by frames: what they answer, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from queued_tasks.runtime import wire
from tests.fake_supervisor import TASKS, worker

KINDS = pytest.mark.parametrize(("kind", "suffix"), [("async", ""), ("sync", "_plainly")])


# ---- functions and their ends


async def test_an_async_function_returns_json() -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of("add", 1, 2)
    assert (end.outcome, end.result, end.delay) == ("done", "3", None)


async def test_a_plain_function_runs_on_the_main_thread() -> None:
    async with worker("sync") as supervisor:
        end = await supervisor.result_of("thread_of_function", executor=1)
    assert (end.outcome, end.result) == ("done", '"MainThread"')


async def test_a_function_declared_for_a_thread_runs_on_one() -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of("thread_name", executor=2)
    assert json.loads(end.result or "").startswith("task")


@pytest.mark.parametrize(("kind", "function"), [("async", "thread_of_function"), ("sync", "add")])
async def test_a_function_that_has_become_async_or_plain_runs_all_the_same(kind: str, function: str) -> None:
    async with worker(kind) as supervisor:
        end = await supervisor.result_of(function, *((1, 2) if kind == "sync" else ()))
    assert end.outcome == "done"


async def test_a_stop_iteration_on_a_thread_is_a_failure_like_others() -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of("stop_iteration", executor=2)
    assert (end.outcome, end.exception_name) == ("failed", "StopIteration")


@KINDS
async def test_an_error_comes_back_with_a_traceback_that_starts_in_the_function(kind: str, suffix: str) -> None:
    async with worker(kind) as supervisor:
        end = await supervisor.result_of(f"fail{suffix}", "no luck")
    assert (end.outcome, end.exception_name, end.exception_message) == ("failed", "ValueError", "no luck")
    trace = end.exception_traceback or ""
    assert f"in fail{suffix}" in trace.splitlines()[1]
    assert 27 <= (end.delay or 0) <= 33


@KINDS
async def test_an_exit_in_a_function_leaves_the_worker_alive(kind: str, suffix: str) -> None:
    async with worker(kind) as supervisor:
        end = await supervisor.result_of(f"leave{suffix}")
        after = await supervisor.result_of("add_plainly", 1, 2)
    assert (end.outcome, end.exception_name, after.result) == ("failed", "SystemExit", "3")


async def test_give_up_on_ends_the_task() -> None:
    async with worker() as supervisor:
        assert (await supervisor.result_of("fail_for_good")).delay is None


async def test_text_that_postgresql_can_t_keep_is_made_fit() -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of("odd_text")
    assert end.exception_message == "\N{REPLACEMENT CHARACTER} and ?"


async def test_retry_and_cancel_decide_for_themselves() -> None:
    async with worker() as supervisor:
        retried = await supervisor.result_of("again", 5, failures=9)
        cancelled = await supervisor.result_of("no_more", "gone")
    assert (retried.outcome, retried.delay) == ("retry", 5)
    assert (cancelled.outcome, cancelled.delay, cancelled.exception_message) == ("cancelled", None, "gone")


@KINDS
@pytest.mark.parametrize(
    ("which", "outcome", "name", "message"),
    [
        ("an exception as the reason", "cancelled", "Cancel", "boo"),
        ("a subclass without super", "cancelled", "Cancel", ""),
        ("a retry without super", "retry", "Retry", ""),
        ("deep", "failed", "ExceptionGroup", "several (1 sub-exception)"),
        ("unreadable", "failed", "Unreadable", "(its text can't be had: SystemExit)"),
        ("shapeless", "failed", "RuntimeError", "how it ended can't be read: no class"),
    ],
)
async def test_an_attempt_ends_whatever_it_raises(
    kind: str, suffix: str, which: str, outcome: str, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_HOOKS", "1")
    async with worker(kind) as supervisor:
        end = await supervisor.result_of(f"raise_odd{suffix}", which)
        after = await supervisor.result_of("add_plainly", 1, 2)
    assert (end.outcome, end.exception_name, end.exception_message) == (outcome, name, message)
    assert after.result == "3"


async def test_where_an_exception_came_from_is_known_though_it_won_t_tell() -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of("raise_odd", "unreadable")
    assert "in raise_odd" in (end.exception_traceback or "")


async def test_they_do_so_in_a_task_group_too() -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of("no_more_in_a_group", "gone")
    assert (end.outcome, end.exception_message, end.exception_traceback) == ("cancelled", "gone", None)


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (f"{TASKS}:{'a' * 500}", (), "InvalidTask"),
        ("add", ("one", 2), "SerializationError"),
        ("add", (1,), "SerializationError"),
        ("odd_result", (), "SerializationError"),
    ],
)
async def test_what_can_t_run_or_be_kept_fails_for_good(function: str, arguments: tuple[object], name: str) -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of(function, *arguments)
    assert (end.outcome, end.delay, end.exception_name) == ("failed", None, name)


@KINDS
@pytest.mark.parametrize(
    ("function", "kind_of_stance", "reason"),
    [
        ("absent", "unknown", "deploy the version that has it"),
        ("no_such_module:work", "unknown", "no module 'no_such_module' is here"),
        ("os:system", "refused", "add it to QUEUE_ALLOWED_MODULES"),
        (f"{TASKS}:os.system", "refused", "only classes may hold a task function"),
        (f"{TASKS}:timedelta", "refused", "is a class"),
        (f"{TASKS}:no reference", "refused", "write module:qualname"),
    ],
)
async def test_what_can_t_be_run_here_comes_back(
    kind: str, suffix: str, function: str, kind_of_stance: str, reason: str
) -> None:
    async with worker(kind) as supervisor:
        no = supervisor.run(function)
        unknown = await supervisor.first(wire.Unknown)
    assert (unknown.no, unknown.stance.kind, supervisor.ends) == (no, kind_of_stance, [])
    assert reason in unknown.stance.reason


async def test_a_module_that_fails_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text(f"open({str(tmp_path / 'seen')!r}, 'a').write('x')\nraise RuntimeError('no')\n")
    async with worker(app_dir=str(tmp_path)) as supervisor:
        for _ in range(2):
            supervisor.run("broken:work")
        unknown = await supervisor.until(lambda: next(iter(supervisor.all(wire.Unknown)[1:]), None))
    assert unknown.stance.kind == "unknown"
    assert "RuntimeError: no" in unknown.stance.reason
    assert (tmp_path / "seen").read_text() == "x"


async def test_a_worker_says_which_functions_it_knows() -> None:
    functions = [f"{TASKS}:add", f"{TASKS}:absent", "os:system"]
    async with worker() as supervisor:
        supervisor.process.send(wire.Knows(functions))
        answer = await supervisor.first(wire.Stances)
    assert [(stance.function, stance.kind) for stance in answer.stances] == [
        *zip(functions, ("known", "unknown", "refused"), strict=True)
    ]


async def test_no_more_than_its_slots_run_at_once_and_the_rest_keeps_its_order() -> None:
    async with worker(slots=2) as supervisor:
        numbers = [supervisor.run("sleep", 0.01) for _ in range(7)]
        await supervisor.end_of(numbers[-1])
    assert [end.no for end in supervisor.ends] == numbers
    running = most = 0
    for frame in supervisor.frames:
        running += len(frame.lines) if isinstance(frame, wire.Logged) else 0
        running -= len(frame.ends) if isinstance(frame, wire.Ended) else 0
        most = max(most, running)
    assert most == 2


# ---- start and end of the worker


@pytest.mark.parametrize(("function", "arguments"), [("add", (1, 2)), ("log_much", (3,)), ("add_plainly", (1, 2))])
async def test_ends_are_told_before_anybody_else_starts(function: str, arguments: tuple[object]) -> None:
    async with worker(slots=2) as supervisor:
        attempts = [supervisor.attempt(function, *arguments) for _ in range(7)] + [supervisor.attempt("take_all_along")]
        supervisor.process.send(wire.Run(attempts))
        assert await supervisor.exit_code() == 9
    ended = {end.no for end in supervisor.ends}
    assert len(ended) >= 6, "another one runs beside it"
    assert ended <= {attempt.no for attempt in attempts[:-1]}


async def test_it_is_known_what_a_sync_worker_has_begun_even_if_it_took_all_along() -> None:
    async with worker("sync") as supervisor:
        names = ["add_plainly"] * 5 + ["take_all_along_plainly"] + ["add_plainly"] * 5
        supervisor.process.send(
            wire.Run([supervisor.attempt(name, *((1, 2) if name == "add_plainly" else ())) for name in names])
        )
        assert await supervisor.exit_code() == 9
        begun = supervisor.argument.begun
    assert begun is not None
    assert begun.value == 6


@pytest.mark.parametrize(("kind", "function"), [("async", "sleep"), ("sync", "sleep_plainly")])
async def test_a_drain_hands_back_what_has_not_started_and_finishes_what_runs(kind: str, function: str) -> None:
    async with worker(kind, slots=1) as supervisor:
        running, waiting = supervisor.run(function, 0.3), supervisor.run(function, 0.3)
        await supervisor.said("sleeping")
        supervisor.process.send(wire.Drain(1000))
        late = supervisor.run(function, 0)
        assert await supervisor.exit_code() == 0
    assert [end.no for end in supervisor.ends] == [running]
    assert supervisor.ends[0].outcome == "done"
    assert [no for frame in supervisor.all(wire.Returned) for no in frame.nos] == [waiting, late]
    assert isinstance(supervisor.frames[-1], wire.Bye)


@pytest.mark.parametrize(("kind", "function"), [("async", "sleep"), ("sync", "sleep_plainly")])
async def test_what_has_not_started_can_be_asked_back_while_work_goes_on(kind: str, function: str) -> None:
    async with worker(kind, slots=1) as supervisor:
        running, waiting = supervisor.run(function, 0.3), supervisor.run(function, 0.3)
        await supervisor.said("sleeping")
        supervisor.process.send(wire.HandBack())
        returned = await supervisor.first(wire.Returned)
        later = supervisor.run(function, 0)
        ends = [await supervisor.end_of(running), await supervisor.end_of(later)]
    assert (returned.nos, [end.outcome for end in ends]) == ([waiting], ["done", "done"])


@pytest.mark.parametrize(
    ("kind", "function", "arguments"),
    [("async", "sleep", (1000,)), ("async", "sleep_on", ()), ("sync", "sleep_plainly", (1000,)), ("sync", "spin", ())],
)
async def test_what_outlasts_the_grace_is_interrupted_without_a_failure(
    kind: str, function: str, arguments: tuple[object]
) -> None:
    async with worker(kind) as supervisor:
        no = supervisor.run(function, *arguments)
        await supervisor.until(lambda: supervisor.lines or None)
        supervisor.process.send(wire.Drain(0.05))
        end = await supervisor.end_of(no)
        assert await supervisor.exit_code() == 0
    assert (end.outcome, end.delay) == ("interrupted", 0)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_standby_can_be_drained(kind: str) -> None:
    async with worker(kind, active=False) as supervisor:
        supervisor.process.send(wire.Drain(1))
        assert await supervisor.exit_code() == 0
    assert isinstance(supervisor.frames[-1], wire.Bye)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_busy_worker_ends_with_the_connection_to_its_supervisor(kind: str) -> None:
    async with worker(kind) as supervisor:
        supervisor.run("sleep" if kind == "async" else "spin", *((1000,) if kind == "async" else ()))
        await supervisor.until(lambda: supervisor.lines or None)
        supervisor.hang_up()
        assert await supervisor.exit_code() == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_the_group_is_left_to_the_supervisor(number: signal.Signals) -> None:
    async with worker("sync") as supervisor:
        no = supervisor.run("sleep_plainly", 0.3)
        await supervisor.said("sleeping")
        assert supervisor.process.pid is not None
        os.kill(supervisor.process.pid, number)
        assert (await supervisor.end_of(no)).outcome == "done"


async def test_a_worker_without_an_application_is_small() -> None:
    async with worker(allowed_modules=("app",), app_dir=None) as supervisor:
        supervisor.process.send(wire.Ping(1))
        await supervisor.first(wire.Pong)
        assert 10_000_000 < supervisor.process.usage().memory < 45_000_000
