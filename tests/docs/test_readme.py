"""The README does what it says: its files, its commands, in its order."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from queued_tasks import QueuedTasks, Task
from tests.command import environment, started
from tests.docs.blocks import blocks_of, write_files
from tests.docs.tables import ROOT
from tests.waiting import wait_until

README = ROOT / "README.md"
IN_A_TASK = next(block for block in blocks_of(README) if "def build_report" in block.code)


def lines(word: str) -> list[str]:
    """The commands of the README that begin with `word`, without their comments."""
    shell = "\n".join(block.code for block in blocks_of(README) if block.language == "bash")
    return [
        line.partition("  #")[0].partition(" # ")[0].strip() for line in shell.splitlines() if line.startswith(word)
    ]


def program(line: str) -> list[str]:
    """A command as it is started here: by this environment's programs."""
    first, *rest = shlex.split(line)
    return [str(Path(sys.executable).with_name(first)), *rest]


@asynccontextmanager
async def terminal(line: str, folder: Path, environ: dict[str, str]) -> AsyncIterator[Process]:
    """A terminal in which a command goes on until Ctrl-C."""
    running = await asyncio.create_subprocess_exec(*program(line), cwd=folder, env=environ, stderr=PIPE, stdout=PIPE)
    try:
        yield running
    finally:
        if running.returncode is None:
            running.terminate()
        await running.communicate()


async def output(line: str, folder: Path, environ: dict[str, str]) -> str:
    """What a command prints."""
    running = await asyncio.create_subprocess_exec(*program(line), cwd=folder, env=environ, stderr=PIPE, stdout=PIPE)
    out, err = await running.communicate()
    assert running.returncode == 0, err.decode()
    return out.decode()


async def address_of(uvicorn: Process) -> str:
    """Where uvicorn says that it listens."""
    assert uvicorn.stderr
    async for line in uvicorn.stderr:
        if found := re.search(r"running on (\S+)", line.decode()):
            return found[1]
    raise AssertionError("uvicorn has ended without a word on where it listened")


async def told_by_the_commands(folder: Path, environ: dict[str, str]) -> dict[str, str]:
    """Follow the README in three terminals; what the commands at its end print, by the command."""
    write_files(README, folder)
    (start,), (web,), (post,) = lines("queued-tasks start --app main:app --workers"), lines("uvicorn"), lines("curl")
    async with (
        terminal(start, folder, environ),
        terminal(web, folder, {**environ, "UVICORN_PORT": "0"}) as uvicorn,
        httpx.AsyncClient(base_url=await address_of(uvicorn)) as client,
    ):
        path = post.split("localhost:8000")[1]
        id = (await client.post(path)).raise_for_status().json()["task"]

        async def is_done() -> bool:
            return '"state": "done"' in await output(f"queued-tasks tasks show {id} --json", folder, environ)

        await wait_until(is_done)
        looks = [line.replace("<id>", id) for line in lines("queued-tasks") if "start" not in line]
        return {" ".join(line.split()[1:3]): await output(line, folder, environ) for line in looks}


SHOWN = {
    "status": "1 done",
    "servers": "running",
    "tasks list": "send_welcome",
    "tasks show": '"sent to ada@example.org"',
}


async def test_the_way_of_the_readme_leads_to_a_done_task(database: str, tmp_path: Path) -> None:
    said = await told_by_the_commands(tmp_path, environment(database))
    assert {command: text for command, text in SHOWN.items() if text not in said[command]} == {}


async def test_it_does_so_without_any_database_too(tmp_path: Path, data_folder: Path) -> None:
    said = await told_by_the_commands(tmp_path, environment(None, QUEUE_DATA_DIR=str(data_folder)))
    assert {command: text for command, text in SHOWN.items() if text not in said[command]} == {}


def test_every_command_of_the_readme_is_tried() -> None:
    looks = {" ".join(line.split()[1:3]) for line in lines("queued-tasks") if "start" not in line}
    assert looks == SHOWN.keys()


@pytest.fixture
def data_folder() -> Iterator[Path]:
    """A folder for an embedded PostgreSQL, removed when the last of its users has left it."""
    folder = Path(tempfile.mkdtemp(prefix="queued-tasks-"))
    folder.chmod(0o711)  # under root PostgreSQL runs as another user and must pass through
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def tasks(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[QueuedTasks]:
    """A handle, with a server that knows the functions of the README's second example."""
    (tmp_path / "readme_example.py").write_text(IN_A_TASK.code)
    monkeypatch.syspath_prepend(tmp_path)
    async with (
        started("start", "--workers", 1, database=database, cwd=tmp_path),
        QueuedTasks.connect(database) as handle,
    ):
        yield handle
    sys.modules.pop("readme_example", None)


async def build_report(tasks: QueuedTasks, pages: int) -> Task:
    """Add one."""
    return await tasks.schedule("readme_example:build_report", timedelta(0), args=[7, pages])


async def is_in(state: str, tasks: QueuedTasks, id: UUID) -> bool:
    """Whether the task has run, and is in this state."""
    task = await tasks.get_task_by_id(id)
    return task is not None and task.attempt > 0 and task.state == state


async def test_a_report_of_the_readme_keeps_its_progress(tasks: QueuedTasks) -> None:
    report = await build_report(tasks, 3)
    await wait_until(lambda: is_in("done", tasks, report.id))
    ended = await tasks.get_task_by_id(report.id)
    assert ended
    assert (ended.result, ended.context) == ("report-7.pdf", {"progress": {"page": 3}})


async def test_a_report_of_the_readme_logs_each_page(tasks: QueuedTasks) -> None:
    report = await build_report(tasks, 2)
    await wait_until(lambda: is_in("done", tasks, report.id))
    assert [line.message for line in await tasks.get_logs(report.id)] == ["page 1", "page 2"]


async def test_a_report_of_the_readme_tells_the_customer(tasks: QueuedTasks) -> None:
    await build_report(tasks, 1)

    async def told() -> list[Task]:
        return await tasks.list_tasks(name="notify", state="done")

    await wait_until(told)
    (notified,) = await told()
    assert [line.message for line in await tasks.get_logs(notified.id)] == ["customer 7 was told"]


async def test_a_report_of_the_readme_that_is_too_long_is_cancelled(tasks: QueuedTasks) -> None:
    report = await build_report(tasks, 101)
    await wait_until(lambda: is_in("cancelled", tasks, report.id))
    ended = await tasks.get_task_by_id(report.id)
    assert ended
    assert ended.exception_message == "too long"


async def test_a_report_of_the_readme_without_pages_comes_again_later(tasks: QueuedTasks) -> None:
    report = await build_report(tasks, 0)
    await wait_until(lambda: is_in("enqueued", tasks, report.id))
    again = await tasks.get_task_by_id(report.id)
    assert again
    assert again.started_at
    assert again.run_at
    assert round((again.run_at - again.started_at) / timedelta(minutes=5)) == 1
