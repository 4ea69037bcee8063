"""FastAPI over a real socket: an acknowledged request has its tasks, any other has none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Annotated, Any
from unittest.mock import patch
from uuid import UUID

import asyncpg
import httpx
import pytest
import uvicorn
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from queued_tasks.integrations import fastapi as integration
from queued_tasks.integrations.fastapi import Inject, get_tasks, lifespan
from queued_tasks.runtime.errors import InvalidState
from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import NewTask
from tests.proxy import Proxy, proxied
from tests.waiting import wait_until

Tasks = Annotated[QueuedTasks, Depends(get_tasks)]
said: list[str] = []


def work(value: Any) -> None: ...


async def first_half(tasks: QueuedTasks = Inject(QueuedTasks)) -> QueuedTasks:  # noqa: B008  # FastAPI's way
    tasks.add_task(work, "dependency")
    return tasks


router = APIRouter()


@router.post("/inject")
async def inject(tasks: QueuedTasks = Inject(QueuedTasks)) -> dict[str, UUID]:  # noqa: B008  # FastAPI's way
    return {"id": tasks.add_task(work, "inject").id}


@router.post("/depends")
async def depends(tasks: QueuedTasks = Depends(get_tasks)) -> dict[str, UUID]:  # noqa: B008  # FastAPI's way
    return {"id": tasks.add_task(work, "depends").id}


@router.post("/annotated")
async def annotated(tasks: Tasks) -> dict[str, UUID]:
    return {"id": tasks.add_task(work, "annotated").id}


@router.post("/sync")
def in_a_thread(tasks: Tasks) -> dict[str, UUID]:
    return {"id": tasks.add_task(work, "sync").id}


@router.post("/shared")
async def shared(tasks: Tasks, same: Annotated[QueuedTasks, Depends(first_half)]) -> dict[str, bool]:
    tasks.add_task(work, "handler")
    return {"same": tasks is same}


@router.post("/conflict")
async def conflict(tasks: Tasks) -> None:
    tasks.add_task(work, "conflict")
    raise HTTPException(409)


@router.post("/crash")
def crash(tasks: Tasks) -> None:
    tasks.add_task(work, "crash")
    raise ZeroDivisionError


@router.post("/awaited")
async def awaited(tasks: Tasks) -> None:
    await tasks.add_task(work, "awaited")
    tasks.add_task(work, "not awaited")
    raise HTTPException(409)


@router.post("/refused")
async def refused(tasks: Tasks) -> str:
    tasks.add_task(work, "good")
    tasks.add_task(work, "bad", name="bad")
    return "acknowledged"


@router.post("/late")
async def late(tasks: Tasks, background: BackgroundTasks) -> StreamingResponse:
    def after() -> Iterator[str]:
        try:
            tasks.add_task(work, "late")
        except InvalidState as error:
            yield str(error)

    return StreamingResponse(after())


@router.post("/everywhere")
async def everywhere(request: Request, background: BackgroundTasks) -> None:
    handle: QueuedTasks = request.app.state.queued_tasks

    async def after() -> None:
        await handle.add_task(work, "from the background")

    background.add_task(after)


@router.websocket("/socket")
async def socket_of(websocket: WebSocket, tasks: Tasks) -> None:
    await websocket.accept()
    while True:
        tasks.add_task(work, await websocket.receive_text())


@router.post("/ask")
async def ask(tasks: Tasks) -> int:
    return await tasks.get_pending_tasks_count()


def application(**options: Any) -> FastAPI:
    app = FastAPI(lifespan=lifespan(**options))
    app.include_router(router)
    mounted = FastAPI()
    mounted.include_router(router)
    app.mount("/mounted", mounted)
    return app


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The application behind uvicorn, on a port of its own."""

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    serving = asyncio.create_task(server.serve([listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    limits = httpx.Limits(max_connections=200)
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
            yield http
    finally:
        server.should_exit = True
        await serving
        listener.close()


@pytest.fixture
async def http(database: str) -> AsyncIterator[httpx.AsyncClient]:
    async with served(application(dsn=database)) as client_of_app:
        yield client_of_app


@pytest.fixture
async def away(database: str) -> AsyncIterator[tuple[httpx.AsyncClient, Proxy]]:
    """The application over a proxy that can be cut, with a short patience, after a first request."""
    with patch.object(integration, "PATIENCE", 0.5):
        async with proxied(database) as (proxy, dsn), served(application(dsn=dsn)) as http:
            assert (await http.post("/inject")).status_code == 200
            yield http, proxy


async def values(rows: asyncpg.Connection) -> list[str]:
    """The arguments of all tasks."""
    return [row["value"] for row in await rows.fetch("select args ->> 0 as value from queued_tasks.task order by id")]


@pytest.mark.parametrize("path", ["inject", "depends", "annotated", "sync"])
async def test_every_spelling_writes_the_task_before_the_response(
    http: httpx.AsyncClient, rows: asyncpg.Connection, path: str
) -> None:
    answer = await http.post(f"/{path}")
    ids = [str(row["id"]) for row in await rows.fetch("select id from queued_tasks.task")]
    assert (answer.status_code, [answer.json()["id"]], await values(rows)) == (200, ids, [path])


async def test_dependencies_of_a_request_share_one_handle(http: httpx.AsyncClient, rows: asyncpg.Connection) -> None:
    assert (await http.post("/shared")).json() == {"same": True}
    assert await values(rows) == ["dependency", "handler"]


async def test_a_mounted_application_has_the_queue_as_well(http: httpx.AsyncClient, rows: asyncpg.Connection) -> None:
    assert (await http.post("/mounted/inject")).status_code == 200
    assert await values(rows) == ["inject"]


@pytest.mark.parametrize(("path", "status"), [("conflict", 409), ("crash", 500)])
async def test_a_handler_that_raises_enqueues_nothing(
    http: httpx.AsyncClient, rows: asyncpg.Connection, path: str, status: int
) -> None:
    assert (await http.post(f"/{path}")).status_code == status
    assert await values(rows) == []


async def test_what_was_awaited_stays_although_the_handler_raises(
    http: httpx.AsyncClient, rows: asyncpg.Connection
) -> None:
    assert (await http.post("/awaited")).status_code == 409
    assert await values(rows) == ["awaited"]


async def test_a_request_whose_write_is_refused_is_no_success_and_writes_nothing(
    http: httpx.AsyncClient, rows: asyncpg.Connection
) -> None:
    await rows.execute("alter table queued_tasks.task add check (name <> 'bad')")
    assert (await http.post("/refused")).status_code == 500
    assert await values(rows) == []


async def test_a_refused_request_does_not_hurt_those_beside_it(
    http: httpx.AsyncClient, rows: asyncpg.Connection
) -> None:
    await rows.execute("alter table queued_tasks.task add check (name <> 'bad')")
    paths = ["/inject"] * 10 + ["/refused"] + ["/inject"] * 10
    answers = await asyncio.gather(*(http.post(path) for path in paths))
    assert [answer.status_code for answer in answers] == [200] * 10 + [500] + [200] * 10
    assert await values(rows) == ["inject"] * 20


async def test_the_handle_after_the_route_names_the_one_to_use(
    http: httpx.AsyncClient, rows: asyncpg.Connection
) -> None:
    answer = await http.post("/late")
    assert "app.state.queued_tasks" in answer.text
    assert await values(rows) == []


async def test_the_handle_of_the_application_works_after_the_route(
    http: httpx.AsyncClient, rows: asyncpg.Connection
) -> None:
    await http.post("/everywhere")

    async def is_written() -> bool:
        return await values(rows) == ["from the background"]

    await wait_until(is_written)


async def test_concurrent_requests_share_statements(http: httpx.AsyncClient, rows: asyncpg.Connection) -> None:
    sizes: list[int] = []
    add = TaskStore.add

    async def counted(self: TaskStore, tasks: list[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:
        sizes.append(len(tasks))
        return await add(self, tasks, repeat=repeat)

    with patch.object(TaskStore, "add", counted):
        answers = await asyncio.gather(*(http.post("/inject") for _ in range(200)))
    ids = {str(row["id"]) for row in await rows.fetch("select id from queued_tasks.task")}
    assert {answer.json()["id"] for answer in answers} == ids
    assert sum(sizes) == 200
    assert len(sizes) < 150


@pytest.mark.parametrize("path", ["inject", "sync", "awaited", "ask"])
async def test_a_request_is_a_503_while_the_database_is_away(away: tuple[httpx.AsyncClient, Proxy], path: str) -> None:
    http, proxy = away
    proxy.cut()
    answer = await http.post(f"/{path}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_the_tasks_of_a_503_are_never_written(
    away: tuple[httpx.AsyncClient, Proxy], rows: asyncpg.Connection
) -> None:
    http, proxy = away
    proxy.cut()
    assert (await http.post("/depends")).status_code == 503
    await proxy.open()
    assert (await http.post("/annotated")).status_code == 200
    assert await values(rows) == ["inject", "annotated"]


async def test_a_database_that_hangs_is_a_503_and_does_no_harm_later(
    away: tuple[httpx.AsyncClient, Proxy], rows: asyncpg.Connection
) -> None:
    http, proxy = away
    proxy.freeze()
    assert (await http.post("/depends")).status_code == 503
    proxy.cut()
    await proxy.open()
    assert (await http.post("/annotated")).status_code == 200
    assert await values(rows) == ["inject", "annotated"]


async def test_a_short_outage_only_delays_the_response(
    away: tuple[httpx.AsyncClient, Proxy], rows: asyncpg.Connection
) -> None:
    http, proxy = away
    proxy.cut_after(b"annotated")
    assert (await http.post("/annotated")).status_code == 200
    assert (proxy.cuts, await values(rows)) == (1, ["inject", "annotated"])


async def test_lifespan_works_bare(database: str, monkeypatch: pytest.MonkeyPatch, rows: asyncpg.Connection) -> None:
    monkeypatch.setenv("QUEUE_DATABASE_URL", database)
    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    async with served(app) as http:
        assert (await http.post("/inject")).status_code == 200
    assert await values(rows) == ["inject"]


async def test_the_own_lifespan_runs_inside_and_its_state_reaches_requests(
    database: str, rows: asyncpg.Connection
) -> None:
    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        await app.state.queued_tasks.add_task(work, "at the start")
        yield {"colour": "green"}
        app.state.queued_tasks.add_task(work, "at the end")

    app = FastAPI(lifespan=lifespan(own, dsn=database))

    @app.get("/colour")
    async def colour(request: Request) -> str:
        return str(request.state.colour)

    async with served(app) as http:
        assert (await http.get("/colour")).json() == "green"
    assert await values(rows) == ["at the start", "at the end"]


async def test_without_lifespan_the_error_names_the_cure(database: str) -> None:
    app = FastAPI()
    errors: list[Exception] = []

    @app.exception_handler(Exception)
    async def note(request: Request, error: Exception) -> None:
        errors.append(error)

    app.include_router(router)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        await http.post("/inject")
    assert "FastAPI(lifespan=lifespan)" in str(errors[0])


async def test_what_a_websocket_adds_is_written_while_it_is_open_and_kept_when_it_closes(
    database: str, rows: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUEUE_DATABASE_URL", database)

    async def are_written(count: int) -> bool:
        return bool(await rows.fetchval("select count(*) from queued_tasks.task") == count)

    async def send(_: object) -> None: ...

    app, said_to_it = application(), asyncio.Queue[dict[str, Any]]()
    scope = {"type": "websocket", "path": "/socket", "headers": [], "query_string": b"", "subprotocols": []}
    said_to_it.put_nowait({"type": "websocket.connect"})
    async with app.router.lifespan_context(app):
        serving = asyncio.create_task(app(scope, said_to_it.get, send))
        said_to_it.put_nowait({"type": "websocket.receive", "text": "while it is open"})
        await wait_until(lambda: are_written(1))
        said_to_it.put_nowait({"type": "websocket.receive", "text": "as it closes"})
        said_to_it.put_nowait({"type": "websocket.disconnect", "code": 1001})
        with suppress(WebSocketDisconnect):
            await serving
        await wait_until(lambda: are_written(2))
