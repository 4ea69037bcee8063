"""The hooks behind a plain function, in its worker: they have a time of their own, and change no outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from queued_tasks.runtime import wire
from tests.fake_supervisor import FakeSupervisor, worker

APP = """
import asyncio, time
from contextlib import suppress
from pathlib import Path
from queued_tasks import on_post_run, on_pre_run, getLogger
from queued_tasks.runtime import around

around.HOOK_GRACE = {grace}
log = getLogger("app")
go = Path(__file__).with_name("go")

def work(): return 1

def hang():
    log.info("hanging")
    time.sleep(1000)

@on_pre_run
async def before(task):
    if task.name == "before":
        await sleep_in_vain()

@on_post_run
def after(task, result=None, error=None):
    if task.name == "wait":
        time.sleep(0.1)
        log.info("past the deadline of the function")
        while not go.exists():
            time.sleep(0.01)
        log.info("told: %r %s", result, type(error).__name__)
    elif task.name == "hang":
        hang()
    elif task.name == "swallow":
        while True:
            with suppress(BaseException):
                log.info("hanging")
                time.sleep(1000)

@on_post_run
async def after_async(task, result=None, error=None):
    if task.name == "hang async":
        await sleep_in_vain()

async def sleep_in_vain():
    log.info("hanging")
    try:
        await asyncio.sleep(1000)
    finally:
        log.info("over")
"""


@asynccontextmanager
async def hooked(folder: Path, *, grace: float) -> AsyncIterator[FakeSupervisor]:
    """A sync worker that has imported the application, whose hooks have `grace` seconds at least."""
    (folder / "hooked.py").write_text(APP.format(grace=grace))
    async with worker("sync", app_dir=str(folder)) as supervisor:
        await supervisor.result_of("hooked:work")
        yield supervisor


async def interrupted(supervisor: FakeSupervisor, no: int) -> wire.End:
    """The end of an attempt whose hook was interrupted, which is logged."""
    end = await supervisor.end_of(no)
    (failure,) = [line for line in supervisor.lines if line.message.startswith("A hook of on_post_run failed")]
    assert "Interrupted" in (failure.exception or "")
    assert (await supervisor.result_of("hooked:work")).result == "1"
    return end


@pytest.mark.parametrize("hook", ["hang", "hang async"])
async def test_a_hook_that_hangs_ends_in_its_time_and_the_task_is_done(hook: str, tmp_path: Path) -> None:
    async with hooked(tmp_path, grace=0.2) as supervisor:
        end = await interrupted(supervisor, supervisor.run("hooked:work", name=hook, timeout=0.1))
    assert (end.outcome, end.result) == ("done", "1")


@pytest.mark.parametrize("hook", ["hang", "hang async"])
@pytest.mark.parametrize("timeout", [None, 300.0])
async def test_a_cancel_ends_the_hook_and_the_task_is_done(hook: str, timeout: float | None, tmp_path: Path) -> None:
    async with hooked(tmp_path, grace=0.01) as supervisor:
        no = supervisor.run("hooked:work", name=hook, timeout=timeout)
        await supervisor.said("hanging")
        supervisor.process.send(wire.Interrupt(no, "cancel"))
        end = await interrupted(supervisor, no)
    assert (end.outcome, end.result) == ("done", "1")


async def test_a_drain_ends_the_hook_and_the_task_is_done(tmp_path: Path) -> None:
    async with hooked(tmp_path, grace=0.01) as supervisor:
        no = supervisor.run("hooked:work", name="hang", timeout=None)
        await supervisor.said("hanging")
        supervisor.process.send(wire.Drain(0.0))
        assert (await supervisor.end_of(no)).outcome == "done"
        await supervisor.first(wire.Bye)


@pytest.mark.parametrize(
    ("function", "outcome", "said"),
    [("work", "done", "told: 1 NoneType"), ("hang", "timeout", "told: None TaskTimeout")],
)
async def test_a_hook_past_the_deadline_is_not_late_and_comes_to_its_end(
    function: str, outcome: str, said: str, tmp_path: Path
) -> None:
    async with hooked(tmp_path, grace=60) as supervisor:
        no = supervisor.run(f"hooked:{function}", name="wait", timeout=0.1)
        await supervisor.said("past the deadline of the function")
        supervisor.process.send(wire.Ping(1))
        assert (await supervisor.first(wire.Pong)).late == []
        (tmp_path / "go").touch()
        end = await supervisor.end_of(no)
        await supervisor.said(said)
    assert end.outcome == outcome


async def test_a_function_and_its_hook_can_both_be_interrupted(tmp_path: Path) -> None:
    async with hooked(tmp_path, grace=0.2) as supervisor:
        end = await interrupted(supervisor, supervisor.run("hooked:hang", name="hang", timeout=0.1))
    assert end.outcome == "timeout"


async def test_a_hook_that_goes_on_after_its_interruption_is_late(tmp_path: Path) -> None:
    async with hooked(tmp_path, grace=0.1) as supervisor:
        no = supervisor.run("hooked:work", name="swallow", timeout=0.1)

        def late() -> list[int] | None:
            supervisor.process.send(wire.Ping(1))
            return next((pong.late for pong in supervisor.all(wire.Pong) if pong.late), None)

        assert await supervisor.until(late) == [no]


async def test_an_async_hook_before_a_plain_function_is_over_when_it_was_interrupted(tmp_path: Path) -> None:
    async with hooked(tmp_path, grace=0.1) as supervisor:
        end = await supervisor.result_of("hooked:work", name="before", timeout=0.1)
        assert (await supervisor.result_of("hooked:work")).result == "1"
    assert end.outcome == "timeout"
    assert [line.message for line in supervisor.lines] == ["hanging", "over"]
