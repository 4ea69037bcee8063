"""Worker processes: real ones, real signals, real sockets."""

from __future__ import annotations

import asyncio
import functools
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from queued_tasks.runtime.process import (
    AsyncEntry,
    BlockingEntry,
    WorkerProcess,
)
from tests.talk import (
    DECODER,
    LIMIT,
    Talk,
    echo,
    echo_blocking,
    fail,
    interruptible,
    leave,
    leave_a_grandchild,
    on_uvloop,
    report_path,
    report_signals_of_a_program,
    spin,
    talk,
    within_limit,
)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("entry", [echo, echo_blocking])
def test_messages_go_there_and_back(run: Callable[..., None], entry: AsyncEntry[Any] | BlockingEntry[Any]) -> None:
    async def test() -> None:
        async with talk(entry) as echoing:
            echoing.worker.send({"id": 7, "text": "grüezi"})
            assert await echoing.next() == {"id": 7, "text": "grüezi"}

    run(test())


@pytest.mark.parametrize("entry", [echo, echo_blocking])
@on_uvloop
async def test_the_entry_gets_its_argument(entry: AsyncEntry[Any] | BlockingEntry[Any]) -> None:
    async with talk(entry, {"slots": 3}) as echoing:
        echoing.worker.send("argument")
        assert await echoing.next() == {"slots": 3}


@on_uvloop
async def test_ten_thousand_messages_keep_their_order() -> None:
    async with talk(echo) as echoing:
        for number in range(10_000):
            echoing.worker.send(number)
        assert [await echoing.next() for _ in range(10_000)] == list(range(10_000))


@pytest.mark.parametrize("entry", [echo, echo_blocking])
@on_uvloop
async def test_frames_of_five_mebibytes_pass(entry: AsyncEntry[Any] | BlockingEntry[Any]) -> None:
    large = os.urandom(5 * 1024 * 1024)
    async with talk(entry) as echoing:
        echoing.worker.send(large)
        assert await echoing.next() == large


@on_uvloop
async def test_a_kill_is_noticed_by_the_future() -> None:
    async with talk(echo) as echoing:
        os.kill(echoing.worker.pid or 0, signal.SIGKILL)
        assert await echoing.exit_code() == -signal.SIGKILL


@on_uvloop
async def test_who_gives_up_waiting_for_the_exit_code_can_wait_again() -> None:
    async with talk(echo) as echoing:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(echoing.worker.exited, 0.01)
        echoing.worker.kill()
        assert await echoing.exit_code() == -signal.SIGKILL


@on_uvloop
async def test_a_kill_is_noticed_where_there_is_no_pidfd() -> None:
    def forbidden(pid: int, flags: int = 0) -> int:
        raise PermissionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pidfd_open", forbidden)
        async with talk(echo) as echoing:
            echoing.worker.kill()
            assert await echoing.exit_code() == -signal.SIGKILL


@pytest.mark.parametrize("code", [0, 3])
@on_uvloop
async def test_the_last_words_of_a_worker_come_before_its_exit_code(code: int) -> None:
    async with talk(leave, code) as leaving:
        assert await leaving.exit_code() == code
        assert [leaving.received.get_nowait() for _ in range(5000)] == list(range(5000))
        assert leaving.errors == [None]


@on_uvloop
async def test_a_grandchild_that_holds_the_socket_hides_no_death() -> None:
    async with talk(leave_a_grandchild) as leaving:
        assert await leaving.exit_code() == 0
        assert leaving.errors == [None]


@on_uvloop
async def test_an_entry_that_raises_ends_with_exit_code_one() -> None:
    worker = WorkerProcess(fail, None)
    await worker.spawn(DECODER, lambda _: None, lambda _: None)
    async with asyncio.timeout(LIMIT):
        assert await worker.exited == 1


@on_uvloop
async def test_a_spinning_worker_can_be_killed() -> None:
    async with talk(spin) as spinning:
        spinning.worker.kill()
        assert await spinning.exit_code() == -signal.SIGKILL


@on_uvloop
async def test_a_dead_worker_ignores_messages_and_kills() -> None:
    async with talk(echo) as echoing:
        pid = echoing.worker.pid
        echoing.worker.kill()
        await echoing.exit_code()
        echoing.worker.send("anyone?")
        echoing.worker.kill()
        assert echoing.worker.pid == pid
        assert echoing.received.empty()


@on_uvloop
async def test_the_main_thread_of_a_blocking_worker_can_be_interrupted() -> None:
    async with talk(interruptible) as sleeping:
        sleeping.worker.send("stop")
        assert await sleeping.next() == "interrupted"


@pytest.mark.parametrize("entry", [echo, echo_blocking])
@on_uvloop
async def test_the_end_of_the_socket_ends_the_child(entry: AsyncEntry[Any] | BlockingEntry[Any]) -> None:
    def refuse(message: object) -> None:
        raise ConnectionAbortedError

    worker = WorkerProcess(entry, None)
    await worker.spawn(DECODER, refuse, lambda _: None)
    async with asyncio.timeout(LIMIT):
        assert await worker.exited == 1


@pytest.mark.parametrize("entry", [echo, echo_blocking])
@on_uvloop
async def test_sigint_and_sigterm_do_not_touch_a_worker(entry: AsyncEntry[Any] | BlockingEntry[Any]) -> None:
    async with talk(entry) as echoing:
        os.kill(echoing.worker.pid or 0, signal.SIGINT)
        os.kill(echoing.worker.pid or 0, signal.SIGTERM)
        echoing.worker.send("alive")
        assert await echoing.next() == "alive"


@on_uvloop
async def test_programs_that_a_worker_starts_can_be_terminated() -> None:
    async with talk(report_signals_of_a_program) as reporting:
        assert await reporting.next() == {"SigBlk": 0, "SigIgn": 0}


@on_uvloop
async def test_a_worker_inherits_the_search_path(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        async with talk(report_path) as reporting:
            assert str(tmp_path) in await reporting.next()


@on_uvloop
async def test_twenty_killed_workers_leave_no_file_descriptor() -> None:
    async def start_and_kill(count: int) -> None:
        for _ in range(count):
            worker = WorkerProcess(echo, None)
            await worker.spawn(DECODER, lambda _: None, lambda _: None)
            worker.kill()
            await within_limit(worker.exited)

    await start_and_kill(1)
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names are enough
    await start_and_kill(20)
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208


@on_uvloop
async def test_an_entry_that_can_not_be_sent_leaves_no_file_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    worker = WorkerProcess(echo, lambda: None)
    with pytest.raises(Exception, match="lambda"):
        await worker.spawn(DECODER, lambda _: None, lambda _: None)
    assert (worker.pid, len(os.listdir("/proc/self/fd"))) == (None, before)  # noqa: PTH208


# A supervisor of its own, in a session of its own.


async def supervise() -> None:
    """Start three workers, print their pids, then repeat each line of standard input after all of them echoed it."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, functools.partial(print, number.name, flush=True))
    async with talk(echo) as idle, talk(spin) as spinning, talk(echo_blocking) as blocking:
        print(idle.worker.pid, spinning.worker.pid, blocking.worker.pid, flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            for echoing in (idle, blocking):
                echoing.worker.send(line)
                assert await echoing.next() == line
            print(line, end="", flush=True)


@contextmanager
def supervisor() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    code = "import uvloop; from tests.integration.test_process import supervise; uvloop.run(supervise())"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, [int(pid) for pid in process.stdout.readline().split()]
        finally:
            process.kill()


def output_of(coroutine: str) -> str:
    """What the named coroutine function of this module prints in a fresh process."""
    code = f"import uvloop; from tests.integration import test_process as test; uvloop.run(test.{coroutine}())"
    return subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=False
    ).stdout


def died(pidfd: int) -> bool:
    readable, _, _ = select.select([pidfd], [], [], LIMIT)
    os.close(pidfd)
    return bool(readable)


def test_the_death_of_the_supervisor_ends_idle_spinning_and_blocking_workers() -> None:
    with supervisor() as (process, pids):
        workers = [os.pidfd_open(pid) for pid in pids]
        process.kill()
        assert [died(worker) for worker in workers] == [True, True, True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_is_left_to_the_supervisor(number: signal.Signals) -> None:
    with supervisor() as (process, _):
        assert process.stdin is not None
        assert process.stdout is not None
        os.killpg(process.pid, number)
        assert process.stdout.readline() == f"{number.name}\n"
        print("alive", file=process.stdin, flush=True)
        assert process.stdout.readline() == "alive\n"


async def start_under_fire() -> None:
    """Signal two workers, of which one is the process's first, before they can have a handler."""
    for _ in range(2):
        worker = WorkerProcess(echo, None)
        talking = Talk(worker)
        await worker.spawn(DECODER, talking.received.put_nowait, talking.errors.append)
        os.kill(worker.pid or 0, signal.SIGINT)
        os.kill(worker.pid or 0, signal.SIGTERM)
        print(await talking.next())


def test_signals_do_not_touch_a_worker_that_is_still_starting() -> None:
    assert output_of("start_under_fire") == "ready\nready\n"


def test_workers_need_no_process_but_the_resource_tracker() -> None:
    with supervisor() as (process, pids):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        others = [Path(f"/proc/{child}/cmdline").read_text() for child in children if int(child) not in pids]
        assert ["resource_tracker" in command for command in others] == [True]


def test_a_process_that_exits_takes_its_workers_along_and_runs_its_main_module_once(tmp_path: Path) -> None:
    script = tmp_path / "forgetful.py"
    script.write_text(
        "print('main runs', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    import sys, uvloop\n"
        "    from tests.integration.test_process import forget\n"
        "    sys.exit(uvloop.run(forget()))\n"
    )
    ended = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=False)
    assert (ended.returncode, ended.stdout) == (4, "main runs\nready\n")


async def forget() -> int:
    """Start a worker that spins, and leave without ending it."""
    worker = WorkerProcess(spin, None)
    talking = Talk(worker)
    await worker.spawn(DECODER, talking.received.put_nowait, talking.errors.append)
    print(await talking.next(), flush=True)
    return 4
