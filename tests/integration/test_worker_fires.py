"""What a schedule has added gets the hooks of the enqueuer in its worker: servers run none of the user's code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fake_supervisor import FakeSupervisor, worker

APP = """
from queued_tasks import on_post_create, on_pre_create, on_pre_run, scheduled_task, get_full_context, getLogger

log = getLogger("app")

@scheduled_task(cron="0 8 * * *", name="report")
async def report(): return get_full_context()

@scheduled_task(cron="0 8 * * *", name="report-plainly")
def report_plainly(): return get_full_context()

@on_pre_create
def tag(task): task.context["tenant"] = "north"

@on_pre_create
async def refuse(task):
    if task.context.get("holiday"):
        raise PermissionError("not today")
    task.context["asked"] = task.context.get("asked", 0) + 1

@on_post_create
async def break_down(task): raise OSError("nobody minds")

@on_pre_run
def look(task): log.info("before: %s", task.context["tenant"])
"""

KINDS = pytest.mark.parametrize(("kind", "name"), [("async", "report"), ("sync", "report-plainly")])


def run(supervisor: FakeSupervisor, name: str, **context: object) -> int:
    """Start a run of the schedule, as one that was fired."""
    fire = {"schedule": {"name": name, "due_at": "2026-01-01T08:00:00+00:00"}, **context}
    return supervisor.run(f"fired:{name.replace('-', '_')}", context=json.dumps(fire))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "fired.py").write_text(APP)
    return str(tmp_path)


@KINDS
async def test_pre_create_hooks_change_its_context_before_the_pre_run_hooks_see_it(
    kind: str, name: str, folder: str
) -> None:
    async with worker(kind, app_dir=folder) as supervisor:
        end = await supervisor.end_of(run(supervisor, name))
    assert json.loads(end.result or "")["tenant"] == "north"
    assert "before: north" in [line.message for line in supervisor.lines]


@KINDS
async def test_a_pre_create_hook_refuses_it(kind: str, name: str, folder: str) -> None:
    async with worker(kind, app_dir=folder) as supervisor:
        end = await supervisor.end_of(run(supervisor, name, holiday=True))
    assert (end.outcome, end.delay) == ("cancelled", None)
    assert end.exception_message == "refused by a pre-create hook (PermissionError: not today)"


@KINDS
async def test_an_error_of_a_post_create_hook_is_logged(kind: str, name: str, folder: str) -> None:
    async with worker(kind, app_dir=folder) as supervisor:
        end = await supervisor.end_of(run(supervisor, name))
    assert end.outcome == "done"
    assert any("OSError: nobody minds" in (line.exception or "") for line in supervisor.lines)


@KINDS
async def test_a_second_attempt_asks_no_hook_again(kind: str, name: str, folder: str) -> None:
    async with worker(kind, app_dir=folder) as supervisor:
        first = await supervisor.end_of(run(supervisor, name))
        again = supervisor.run(f"fired:{name.replace('-', '_')}", context=first.context, attempt=2)
        second = await supervisor.end_of(again)
    assert json.loads(second.result or "")["asked"] == 1


async def test_a_task_that_somebody_added_is_none(folder: str) -> None:
    async with worker(app_dir=folder) as supervisor:
        end = await supervisor.end_of(supervisor.run("fired:report", context='{"tenant": "south"}'))
    assert json.loads(end.result or "") == {"tenant": "south"}
