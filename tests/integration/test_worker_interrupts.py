"""Worker processes, driven by frames: deadlines, interrupts, and who keeps a process busy."""

from __future__ import annotations

import asyncio
import math
import os
import signal

import psutil
import pytest

from queued_tasks.runtime import wire
from queued_tasks.runtime.stacks import QUESTION
from tests.fake_supervisor import worker
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("kind", "function", "arguments"),
    [
        ("async", "sleep", (1000,)),
        ("async", "sleep_on", ()),
        ("sync", "spin", ()),
        ("sync", "sleep_plainly", (1000,)),
        ("sync", "spin_through_exceptions", ()),
        ("sync", "spin_in_a_finalizer", ()),
        ("sync", "spin_through_errors_of_finalizers", ()),
        ("sync", "sleep", (1000,)),
    ],
)
async def test_a_function_ends_at_its_deadline(kind: str, function: str, arguments: tuple[object]) -> None:
    async with worker(kind) as supervisor:
        await supervisor.result_of("add_plainly", 1, 2)  # imports the module, which may take longer than what follows
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
        no = supervisor.run(function)
        await supervisor.said("swallowing")
        supervisor.process.send(wire.Interrupt(no, "cancel"))

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
