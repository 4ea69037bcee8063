"""What a server shows of itself to those who look after it."""

from __future__ import annotations

from pathlib import Path

from queued_tasks import QueuedTasks
from tests.apps import work
from tests.command import queued_tasks
from tests.servers import Server, held_tasks, running_server, started
from tests.waiting import wait_until

LIMIT = 30  # seconds


async def test_the_health_file_is_there_while_the_server_works_and_removed_when_it_leaves(
    database: str, tmp_path: Path
) -> None:
    file = tmp_path / "healthy"
    async with running_server(database, health_file=file) as server:
        await wait_until(file.exists)
        first = file.stat().st_mtime_ns
        await wait_until(lambda: file.stat().st_mtime_ns > first)
        assert await server.stop() == 0
    assert not file.exists()


async def test_a_server_whose_slots_are_all_taken_is_ready(database: str, tasks: QueuedTasks, tmp_path: Path) -> None:
    async with running_server(database, health_port=0, concurrency=1, lease_ttl=1.5) as server:
        await held_tasks(tasks, tmp_path, 2)
        await wait_until(lambda: started(tmp_path))
        beat = await _beat(server)
        await wait_until(lambda: _has_beaten_since(server, beat))
        await wait_until(lambda: _answers(server, 200))


async def test_unknown_paths_of_the_probes_are_404(database: str) -> None:
    async with running_server(database, health_port=0) as server:
        assert await server.probe("/metrics") == 404


async def test_two_servers_of_one_name_are_two(database: str, tasks: QueuedTasks) -> None:
    async with running_server(database, name="twin") as one, running_server(database, name="twin") as two:
        shown = (await queued_tasks("servers", "--json", database=database)).json
        assert [row["name"] for row in shown] == ["twin", "twin"]
        assert len({row["id"] for row in shown}) == 2
        assert await one.stop() == 0
        assert await tasks.add_task(work.add, 1, 1).wait(LIMIT) == 2
        assert two.running


async def test_busy_and_free_slots_are_told(database: str, tasks: QueuedTasks, tmp_path: Path) -> None:
    async with running_server(database, concurrency=5):
        await held_tasks(tasks, tmp_path, 3)
        await wait_until(lambda: started(tmp_path) == 3)

        async def shows() -> bool:
            (row,) = (await queued_tasks("servers", "--json", database=database)).json
            return (row["slots"], row["busy"], row["free"]) == (5, 3, 2)

        await wait_until(shows)


async def _answers(server: Server, status: int) -> bool:
    return await server.probe("/readyz") == status


async def _beat(server: Server) -> object:
    row = await server.heartbeat()
    return row and row["beat_at"]


async def _has_beaten_since(server: Server, beat: object) -> bool:
    return await _beat(server) != beat
