"""How servers are shown, once and on and on."""

from __future__ import annotations

from uuid import UUID

from tests.command import Rows, queued_tasks
from tests.databases import connected
from tests.proxy import proxied
from tests.terminal import on_terminal

KINDS = {
    "async": {"workers": 2, "slots": 200, "busy": 3},
    "sync": {"workers": 1, "slots": 1, "busy": 0},
}


async def lose(database: str, server: UUID) -> None:
    """What a peer does when a server is dead."""
    async with connected(database) as connection:
        await connection.execute(
            "select queued_tasks.rescue(server, beat_at, 5, 3) from queued_tasks.heartbeat where server = $1", server
        )


async def test_the_kinds_of_workers_are_told_apart(database: str, rows: Rows) -> None:
    await rows.serve(details={"kinds": KINDS})
    assert "2 + 1 sync" in (await queued_tasks("servers", database=database)).out


async def test_scripts_get_the_workers_of_each_kind(database: str, rows: Rows) -> None:
    await rows.serve(details={"kinds": KINDS})
    (server,) = (await queued_tasks("servers", "--json", database=database)).json
    assert server["kinds"] == {"async": 2, "sync": 1}


async def test_a_hundred_columns_show_all_but_the_id(database: str, rows: Rows) -> None:
    details = {"kinds": KINDS, "load": 0.5, "memory": 100 * 2**20, "claimed_per_minute": 90, "settled_per_minute": 85}
    await rows.serve(details=details)
    head, line = (await queued_tasks("servers", database=database, COLUMNS="100")).out.splitlines()
    titles = "NAME HOST STATE WORKERS BUSY/FREE TAKEN DONE LOAD MEMORY VERSION UP BEAT"
    assert head.split() == titles.split()
    assert "running  2 + 1 sync      3/197     90    85  0.50  100 MiB  0.1.0" in line


async def test_a_lost_server_is_marked_and_shows_when_it_was_heard_of_last(database: str, rows: Rows) -> None:
    await lose(database, await rows.serve())
    _, line = (await queued_tasks("servers", database=database)).out.splitlines()
    assert " lost " in line
    assert line.strip().endswith(("just now", "ago"))


async def test_a_lost_server_stays_visible_for_an_hour(database: str, rows: Rows) -> None:
    await lose(database, await rows.serve())
    (server,) = (await queued_tasks("servers", "--json", database=database)).json
    assert (server["name"], server["state"]) == ("web-1", "lost")
    async with connected(database) as connection:
        await connection.execute("update queued_tasks.server set ended_at = ended_at - interval '61 minutes'")
    assert (await queued_tasks("servers", "--json", database=database)).json == []


async def test_names_and_hosts_are_legible_in_every_width(database: str, rows: Rows) -> None:
    await rows.serve("billing-eu-1", details={"kinds": KINDS, "load": 12.5, "memory": 2**31})
    for columns in ("80", "120", "160", "200"):
        ran = await queued_tasks("servers", database=database, COLUMNS=columns)
        head, line = ran.out.splitlines()
        assert line.startswith("billing-eu-1 ")
        assert ("HOST" in head, "host.a" in line) == (columns != "80", columns != "80")
        assert max(map(len, ran.out.splitlines())) <= int(columns)


# ---- live


async def test_watching_shows_who_comes_until_q(database: str, rows: Rows) -> None:
    await rows.serve("web-1")
    async with on_terminal("servers", "--watch", database=database) as terminal:
        before = terminal.modes
        await terminal.shows("web-1")
        await rows.serve("web-2")
        await terminal.shows("web-2")
        terminal.type("q")
        assert await terminal.exited() == 0
        assert terminal.modes == before


async def test_ctrl_c_ends_the_watching_in_order(database: str, rows: Rows) -> None:
    await rows.serve("web-1")
    async with on_terminal("servers", "--watch", database=database) as terminal:
        await terminal.shows("web-1")
        await rows.serve("web-2")
        await terminal.shows("web-2")
        terminal.type("\x03")
        assert await terminal.exited() == 0


async def test_watching_goes_on_after_the_database_was_away(database: str, rows: Rows) -> None:
    await rows.serve("web-1")
    async with proxied(database) as (proxy, dsn), on_terminal("servers", "--watch", database=dsn) as terminal:
        await terminal.shows("web-1")
        proxy.cut()
        await terminal.shows("PostgreSQL can't be reached")
        await proxy.open()
        await rows.serve("web-2")
        await terminal.shows("web-2")


async def test_without_a_terminal_watching_prints_once(database: str, rows: Rows) -> None:
    await rows.serve("web-1")
    ran = await queued_tasks("servers", "--watch", database=database)
    assert (ran.code, ran.out.count("web-1"), ran.err) == (0, 1, "")


async def test_watching_and_json_exclude_each_other(database: str) -> None:
    assert (await queued_tasks("servers", "--watch", "--json", database=database)).code == 2
