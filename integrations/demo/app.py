"""The application of the demo, written as any user would write theirs: routes that add tasks, and the tasks."""

from __future__ import annotations

import asyncio
import hashlib
import random
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException

from ...runtime.context import get_context, set_context
from ...runtime.current import get_current_task
from ...runtime.handles import QueuedTasks
from ...runtime.logging import getLogger
from ...runtime.options import task
from ..fastapi import get_tasks, lifespan

log = getLogger("shop")
app = FastAPI(title="Queued Tasks demo", lifespan=lifespan())
Queue = Annotated[QueuedTasks, Depends(get_tasks)]

PAGES = 40
DECLINED = 2  # times that the bank of the demo is busy before it takes the money


async def send_email(to: str) -> str:
    """Fast and plentiful."""
    await asyncio.sleep(random.uniform(0.1, 0.6))  # noqa: S311  # the look of work, no secret
    return f"delivered to {to}"


@task(backoff=timedelta(seconds=1.5), max_retries=5)
async def charge_card(order: int) -> str:
    """Fails at first, and is tried again."""
    await asyncio.sleep(0.3)
    running = get_current_task()
    if running is not None and running.attempt <= DECLINED:
        raise ConnectionError("the bank is busy")
    return f"order {order} is paid"


async def build_report(month: str) -> str:
    """Slow, with a progress; an interrupted one goes on where it was."""
    for page in range(get_context("page", 0) + 1, PAGES + 1):
        await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311
        set_context("page", page)
        if page % 10 == 0:
            log.info("report of %s: %d of %d pages", month, page, PAGES)
    return f"{month}, {PAGES} pages"


def resize_image(width: int) -> str:
    """Plain, blocking code: it runs in a worker process of its own kind, where it holds nobody up."""
    digest = hashlib.pbkdf2_hmac("sha256", b"pixels", b"", 400_000)
    return f"{width} px, {digest.hex()[:8]}"


@app.post("/signups", status_code=202)
async def sign_up(tasks: Queue, email: str = "you@example.com") -> dict[str, UUID]:
    """Welcome a new user."""
    return {"task": tasks.add_task(send_email, email).id}


@app.post("/orders", status_code=202)
async def order(tasks: Queue, number: int = 1) -> dict[str, UUID]:
    """Take the money, then send the receipt: the second waits for the first."""
    payment = tasks.add_task(charge_card, number)
    tasks.add_task(send_email, f"buyer-{number}@example.com", parent=payment, name="send_receipt")
    return {"task": payment.id}


@app.post("/reports", status_code=202)
async def report(tasks: Queue, month: str = "this month") -> dict[str, UUID]:
    """Build a report."""
    return {"task": tasks.add_task(build_report, month).id}


@app.post("/images", status_code=202)
async def image(tasks: Queue, width: int = 640) -> dict[str, UUID]:
    """Resize an image."""
    return {"task": tasks.add_task(resize_image, width).id}


@app.get("/tasks/{id}")
async def show(tasks: Queue, id: UUID) -> dict[str, Any]:
    """How a task is."""
    status = await tasks.get_task_status(id)
    if status is None:
        raise HTTPException(404, f"no task {id}")
    return status
