"""`GET /health` for an application's own probes: is the database there, is a server taking tasks, is nothing stuck."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ..runtime.errors import ConfigurationError, DatabaseUnavailable, SchemaOutdated
from ..runtime.handles import QueuedTasks

if TYPE_CHECKING:
    from ..runtime.store.overview import Overview

PATIENCE = 5.0  # seconds; a probe that hangs says less than one that fails

health_router = APIRouter()


class Health(BaseModel):
    """What `/health` answers: with 200 when `status` is ok, else with 503.

    `oldest_waiting_seconds`: how long the oldest task that could run has been waiting, null when there is none.
    `stuck`: it has been for more than a minute, although servers have free slots.
    """

    status: Literal["ok", "unhealthy"]
    database: Literal["ok", "unavailable"]
    servers_claiming: int
    oldest_waiting_seconds: float | None
    stuck: bool


@health_router.head("/health", include_in_schema=False)
@health_router.get("/health", responses={503: {"model": Health, "description": "Unhealthy"}})
async def health(request: Request, response: Response) -> Health:
    """Whether the queue is healthy: the database answers, a server takes tasks, nothing is stuck."""
    seen = await _overview(request)
    fine = seen is not None and seen.claiming > 0 and not seen.stuck
    response.status_code = 200 if fine else 503
    return Health(
        status="ok" if fine else "unhealthy",
        database="unavailable" if seen is None else "ok",
        servers_claiming=0 if seen is None else seen.claiming,
        oldest_waiting_seconds=None if seen is None else seen.oldest_waiting,
        stuck=seen is not None and seen.stuck,
    )


async def _overview(request: Request) -> Overview | None:
    """How the queue is, None when PostgreSQL does not answer."""
    # Only now: worker processes import the application, too, and must not load what they never use.
    from ..runtime.direct import DirectBackend

    handle = getattr(request.app.state, "queued_tasks", None)
    if not isinstance(handle, QueuedTasks) or not isinstance(handle.backend, DirectBackend):
        raise ConfigurationError(
            "The queue is not open: write FastAPI(lifespan=lifespan), around your own if you have one."
        )
    try:
        async with asyncio.timeout(PATIENCE):
            return await handle.backend.overview(handle.settings.lease_ttl)
    except (DatabaseUnavailable, SchemaOutdated, TimeoutError):
        return None
