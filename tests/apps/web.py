"""An application whose only route adds a task of a trial."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI

from queued_tasks import QueuedTasks
from queued_tasks.integrations.fastapi import get_tasks, lifespan
from tests.apps import trials

app = FastAPI(lifespan=lifespan)


@app.post("/work")
async def work(ledger: str, tasks: Annotated[QueuedTasks, Depends(get_tasks)]) -> str:
    return str(tasks.add_task(trials.work, ledger, 0.05).id)
