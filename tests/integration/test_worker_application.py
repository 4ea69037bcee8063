"""Worker processes, driven by frames: the application, its lifespan and hooks around the work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from queued_tasks.runtime import wire
from tests.fake_supervisor import TASKS, worker

KINDS = pytest.mark.parametrize(("kind", "suffix"), [("async", ""), ("sync", "_plainly")])


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


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_the_collector_leaves_alone_what_the_application_imported(kind: str) -> None:
    async with worker(kind, app=f"{TASKS}:own") as supervisor:
        end = await supervisor.result_of("collects_this_module")
    assert end.result == "false"


ATTEMPTS = """
import asyncio, gc, weakref
from contextvars import ContextVar

app = None
gc.disable()
tenant = ContextVar("tenant", default="nobody")
ended = []

async def serve(name: str) -> str:
    before = tenant.get()
    tenant.set(name)
    return before

async def end() -> None:
    ended.append(weakref.ref(asyncio.current_task()))

async def count_left() -> int:
    return sum(1 for task in ended if task() is not None)
"""


async def test_what_a_task_sets_in_its_context_the_next_one_does_not_find(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(ATTEMPTS)
    async with worker("async", slots=1, app="shop:serve", app_dir=str(tmp_path)) as supervisor:
        attempts = [supervisor.attempt("shop:serve", name) for name in ("ada", "bob", "eve")]
        supervisor.process.send(wire.Run(attempts))  # at once, so that one starts where another one ends
        assert [(await supervisor.end_of(attempt.no)).result for attempt in attempts] == ['"nobody"'] * 3


async def test_a_task_that_ended_is_gone_without_the_garbage_collector(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(ATTEMPTS)
    async with worker("async", app="shop:end", app_dir=str(tmp_path)) as supervisor:
        await supervisor.result_of("shop:end")
        assert (await supervisor.result_of("shop:count_left")).result == "0"
