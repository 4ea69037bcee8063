"""Worker processes, driven by frames: what they answer, and what they leave behind."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
from pathlib import Path

import psutil
import pytest

from queued_tasks.runtime import wire
from queued_tasks.runtime.stacks import QUESTION
from tests.fake_supervisor import TASKS, worker
from tests.waiting import wait_until

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


# ---- time and interrupts


@pytest.mark.parametrize(
    ("kind", "function", "arguments"),
    [
        ("async", "sleep", (1000,)),
        ("async", "sleep_on", ()),
        ("sync", "spin", ()),
        ("sync", "sleep_plainly", (1000,)),
        ("sync", "spin_through_exceptions", ()),
        ("sync", "sleep", (1000,)),
    ],
)
async def test_a_function_ends_at_its_deadline(kind: str, function: str, arguments: tuple[object]) -> None:
    async with worker(kind) as supervisor:
        end = await supervisor.result_of(function, *arguments, timeout=0.05)
        after = await supervisor.result_of("add_plainly", 1, 2)
    assert (end.outcome, end.exception_name, after.result) == ("timeout", "TaskTimeout", "3")
    assert end.took >= 0.05


async def test_a_thread_past_its_deadline_holds_its_attempt_until_it_returns() -> None:
    async with worker() as supervisor:
        end = await supervisor.result_of("sleep_on_thread", 0.3, timeout=0.05)
    assert end.outcome == "timeout"
    assert end.took >= 0.3


async def test_a_short_deadline_behind_a_long_one_is_kept() -> None:
    async with worker() as supervisor:
        long = supervisor.run("sleep", 1000, timeout=0.4)
        short = await supervisor.result_of("sleep", 1000, timeout=0.05)
        end = await supervisor.end_of(long)
    assert (short.outcome, end.outcome) == ("timeout", "timeout")
    assert [end.no for end in supervisor.ends] == [short.no, long]


@pytest.mark.parametrize(("kind", "function"), [("async", "sleep"), ("sync", "sleep_plainly"), ("sync", "spin")])
@pytest.mark.parametrize(("why", "outcome", "delay"), [("cancel", "cancelled", None), ("stop", "stopped", math.inf)])
async def test_what_runs_can_be_interrupted(
    kind: str, function: str, why: str, outcome: str, delay: float | None
) -> None:
    async with worker(kind) as supervisor:
        no = supervisor.run(function, *(() if function == "spin" else (1000,)))
        await supervisor.until(lambda: supervisor.lines or None)
        supervisor.process.send(wire.Interrupt(no, why))
        end = await supervisor.end_of(no)
    assert (end.outcome, end.delay) == (outcome, delay)


@pytest.mark.parametrize(("kind", "function"), [("async", "sleep"), ("sync", "sleep_plainly")])
async def test_what_waits_for_its_turn_can_be_interrupted_and_never_starts(kind: str, function: str) -> None:
    async with worker(kind, slots=1) as supervisor:
        supervisor.run(function, 1000)
        waiting = supervisor.run(function, 1000)
        supervisor.process.send(wire.Interrupt(waiting, "cancel"))
        end = await supervisor.end_of(waiting)
    assert (end.outcome, end.took) == ("cancelled", 0)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_one_that_has_just_been_sent_can_be_interrupted(kind: str) -> None:
    async with worker(kind) as supervisor:
        attempt = supervisor.attempt("sleep" if kind == "async" else "sleep_plainly", 1000)
        supervisor.process.send(wire.Run([attempt]))
        supervisor.process.send(wire.Interrupt(attempt.no, "stop"))
        assert (await supervisor.end_of(attempt.no)).outcome == "stopped"


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_an_interrupt_of_what_has_ended_changes_nothing(kind: str) -> None:
    async with worker(kind) as supervisor:
        first = await supervisor.result_of("add_plainly", 1, 2)
        supervisor.process.send(wire.Interrupt(first.no, "cancel"))
        second = await supervisor.result_of("add_plainly", 3, 4)
    assert [end.result for end in supervisor.ends] == ["3", "7"]
    assert second.outcome == "done"


async def test_a_sync_worker_answers_pings_while_its_function_spins() -> None:
    async with worker("sync") as supervisor:
        supervisor.run("spin")
        await supervisor.said("spinning")
        supervisor.process.send(wire.Ping(7))
        pong = await supervisor.first(wire.Pong)
    assert (pong.n, pong.late) == (7, [])


@pytest.mark.parametrize(("kind", "function"), [("async", "swallow"), ("sync", "swallow_plainly")])
async def test_a_pong_names_what_was_told_to_end_and_goes_on(kind: str, function: str) -> None:
    async with worker(kind) as supervisor:
        no = supervisor.run(function, timeout=0.05)

        def late() -> list[int] | None:
            supervisor.process.send(wire.Ping(1))
            return next((pong.late for pong in supervisor.all(wire.Pong) if pong.late), None)

        assert await supervisor.until(late) == [no]


async def test_an_async_function_in_a_sync_worker_is_over_when_it_was_interrupted() -> None:
    async with worker("sync") as supervisor:
        no = supervisor.run("sleep_then_say")
        await supervisor.said("sleeping")
        supervisor.process.send(wire.Interrupt(no, "stop"))
        end = await supervisor.end_of(no)
        after = await supervisor.result_of("add", 1, 2)
    assert (end.outcome, after.result) == ("stopped", "3")
    assert [line.message for line in supervisor.lines] == ["sleeping", "over"]


# ---- what the main thread is doing


@pytest.mark.parametrize(("kind", "function"), [("async", "block"), ("async", "block_in_child"), ("sync", "spin")])
async def test_a_busy_process_names_the_attempt_that_keeps_it_busy(kind: str, function: str) -> None:
    async with worker(kind) as supervisor:
        no = supervisor.run(function)
        account = await supervisor.account()
    assert account.attempt == no


async def test_a_process_that_keeps_the_interpreter_to_itself_shows_the_mark_of_the_attempt() -> None:
    async with worker() as supervisor:
        others = [supervisor.run("sleep", 1000) for _ in range(3)]
        no = supervisor.run("count_for_ages")
        account = await supervisor.account(told=False)
    assert [number for number in (*others, no) if account.points_at(number)] == [no]
    assert account.place.endswith("in count_for_ages")


async def test_a_frozen_process_says_nothing_before_it_goes_on() -> None:
    async with worker() as supervisor:
        pid = supervisor.process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        supervisor.process.ask()
        assert supervisor.process.account() is None
        os.kill(pid, signal.SIGCONT)
        await wait_until(supervisor.process.account)


async def test_answers_that_nobody_reads_hold_nobody_up() -> None:
    async with worker() as supervisor:
        no = supervisor.run("sleep", 0.5)
        assert supervisor.process.pid is not None
        for _ in range(1000):
            os.kill(supervisor.process.pid, QUESTION)
            await asyncio.sleep(0.001)  # faster ones would interrupt the answers to those before, ever deeper
        assert (await supervisor.end_of(no)).outcome == "done"


# ---- start and end of the worker


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_standby_is_ready_and_takes_no_work_before_it_is_activated(kind: str) -> None:
    async with worker(kind, active=False) as supervisor:
        await supervisor.first(wire.Ready)
        no = supervisor.run("add_plainly", 1, 2)
        supervisor.process.send(wire.Ping(1))
        await supervisor.first(wire.Pong)
        assert supervisor.ends == []
        await supervisor.activate()
        assert (await supervisor.end_of(no)).outcome == "done"


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize(
    ("text", "app", "said"),
    [
        ("import no_such_module", "broken:app", "No module named 'no_such_module'"),
        ("raise SystemExit(5)", "broken:app", "SystemExit"),
        ("", "broken:app", "broken has no app"),
        ("", "absent:app", "No module named 'absent'"),
    ],
)
async def test_an_application_that_can_t_be_imported_is_reported(
    kind: str, text: str, app: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(text)
    async with worker(kind, active=False, app=app, app_dir=str(tmp_path)) as supervisor:
        assert await supervisor.exit_code() == 3
    (report,) = supervisor.frames
    assert isinstance(report, wire.NotReady)
    assert said in report.traceback


APPLICATION = """
import asyncio, logging
from contextlib import asynccontextmanager
from fastapi import FastAPI
from queued_tasks.runtime.current import get_current_task

@asynccontextmanager
async def lifespan(app):
    app.state.open = True
    app.state.entered = asyncio.current_task()
    yield
    assert asyncio.current_task() is app.state.entered
    logging.getLogger("app").warning("left")

app = FastAPI(title="Shop", lifespan=lifespan)

def look() -> list:
    current = get_current_task().app
    return [current.title, getattr(current.state, "open", False)]
"""


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("lifespan", [True, False])
async def test_the_application_s_lifespan_runs_around_the_work_when_asked_for(
    kind: str, lifespan: bool, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    async with worker(kind, app="shop:app", app_dir=str(tmp_path), lifespan=lifespan) as supervisor:
        end = await supervisor.result_of("shop:look")
        supervisor.process.send(wire.Drain(10))
        await supervisor.first(wire.Bye)
        assert await supervisor.exit_code() == 0
    assert json.loads(end.result or "") == ["Shop", lifespan]
    assert ("left" in [record.message for record in supervisor.all(wire.Record)]) is lifespan


async def test_a_lifespan_in_a_worker_has_the_queue(tmp_path: Path) -> None:
    (tmp_path / "adder.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from fastapi import FastAPI\n"
        "from queued_tasks.runtime import handles\n"
        "async def warm_up(): ...\n"
        "@asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    await handles.worker_handle.add_task(warm_up)\n"
        "    yield\n"
        "app = FastAPI(lifespan=lifespan)\n"
    )
    async with worker(active=False, app="adder:app", app_dir=str(tmp_path), lifespan=True) as supervisor:
        supervisor.process.send(wire.Activate())
        asked = await supervisor.first(wire.Call)
        supervisor.process.send(wire.Answer(asked.call, "{}"))
        await supervisor.first(wire.Active)
    assert [added.function for added in asked.added or []] == ["adder:warm_up"]


async def test_a_start_hook_that_fails_is_reported(tmp_path: Path) -> None:
    (tmp_path / "hooked.py").write_text(
        "from queued_tasks.runtime.hooks import on_worker_start\n"
        "app = object()\n"
        "@on_worker_start\n"
        "async def open_pool(): raise OSError('no pool')\n"
    )
    async with worker(active=False, app="hooked:app", app_dir=str(tmp_path)) as supervisor:
        supervisor.process.send(wire.Activate())
        assert await supervisor.exit_code() == 3
    assert "OSError: no pool" in supervisor.all(wire.NotReady)[0].traceback


@KINDS
async def test_hooks_run_around_tasks_and_workers(kind: str, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_HOOKS", "1")
    async with worker(kind, app=f"{TASKS}:own") as supervisor:
        opened = await supervisor.result_of(f"opened{suffix}")
        hooked = await supervisor.result_of(f"change_hooked{suffix}")
        failed = await supervisor.result_of(f"fail{suffix}", "x")
        supervisor.process.send(wire.Drain(10))
        await supervisor.first(wire.Bye)
    assert opened.result == '"at the start"'
    assert json.loads(hooked.result or "") == [f"change_hooked{suffix}", []]
    assert failed.exception_name == "ValueError"
    lines = {line.no: line.message for line in supervisor.lines if line.message.startswith("after")}
    assert lines[failed.no] == f"after fail{suffix}: None ValueError"
    assert any("RuntimeError: a hook's own" in (line.exception or "") for line in supervisor.lines)
    assert "stopped: at the start" in [record.message for record in supervisor.all(wire.Record)]


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
