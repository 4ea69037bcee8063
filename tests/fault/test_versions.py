"""Two versions side by side: an older one goes on while the schema grows, a newer one does not start before."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from queued_tasks.runtime.store.migrate import NEWEST
from tests.command import queued_tasks
from tests.databases import connected
from tests.fault.trial import Trial
from tests.servers import ROOT, running_server

EXPAND = """
do $$
declare
    v_table regclass;
begin
    for v_table in select oid from pg_class where relnamespace = 'queued_tasks'::regnamespace and relkind = 'r' loop
        execute format('alter table %s add column later text', v_table);
    end loop;
end $$;
create function queued_tasks.later(p_id uuid) returns text language sql
as $$ select t.later from queued_tasks.task t where t.id = p_id $$;
create index task_later on queued_tasks.task (later) where later is not null;
"""


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The folder of a newer version, which needs a migration more: a column more in every table, and what uses it."""
    home = tmp_path / "newer"
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "queued_tasks", home / "queued_tasks", ignore=without)
    shutil.copytree(ROOT / "tests" / "apps", home / "tests" / "apps", ignore=without)
    (home / "tests" / "__init__.py").touch()
    (home / f"queued_tasks/runtime/store/migrations/{NEWEST + 1:04}_later.sql").write_text(EXPAND)
    return home


async def applied(database: str) -> list[int]:
    """The numbers of the migrations on record."""
    async with connected(database) as connection:
        rows = await connection.fetch("select version from queued_tasks.migration order by version")
    return [row["version"] for row in rows]


async def test_an_older_version_goes_on_while_a_newer_one_migrates_and_joins(
    database: str, trial: Trial, newer: Path
) -> None:
    async with trial.stream(every=0.005), running_server(database, name="older") as older:
        await trial.begun(100)
        ran = await asyncio.gather(*(queued_tasks("migrate", database=database, cwd=newer) for _ in range(3)))
        await trial.goes_on()
        async with running_server(database, name="newer", home=newer, app_dir=newer) as joined:
            await trial.begun(len(trial.runs()) + 200)
            assert await joined.stop() == 0
        await trial.goes_on()
        assert await older.stop() == 0
    async with running_server(database, name="older"):
        await trial.check(ends=frozenset())
    assert sorted(each.out.split("queued_tasks is ")[1].strip() for each in ran) == [
        f"now at migration {NEWEST + 1}.",
        f"up to date, at migration {NEWEST + 1}.",
        f"up to date, at migration {NEWEST + 1}.",
    ]


async def test_each_migration_is_on_record_once_after_several_processes_have_migrated(
    empty_database: str, newer: Path
) -> None:
    ran = await asyncio.gather(*(queued_tasks("migrate", database=empty_database, cwd=newer) for _ in range(3)))
    assert [each.code for each in ran] == [0, 0, 0]
    assert await applied(empty_database) == [*range(1, NEWEST + 2)]


async def test_a_newer_server_leaves_an_older_schema_alone_and_says_what_to_do(database: str, newer: Path) -> None:
    ran = await queued_tasks("start", database=database, cwd=newer)
    needs = f'The schema "queued_tasks" lacks migration {NEWEST + 1} of {NEWEST + 1}: run `queued-tasks migrate`.'
    assert (ran.code, needs in ran.err) == (1, True)
    assert await applied(database) == [*range(1, NEWEST + 1)]
