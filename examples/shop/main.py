"""A shop that takes orders: what follows on one is added as tasks, and stored before the customer gets the answer."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI, HTTPException
from orders import Order, charge, pack, send_receipt

from queued_tasks import QueuedTasks
from queued_tasks.integrations.fastapi import Inject, health_router, lifespan

Queue = Annotated[QueuedTasks, Inject(QueuedTasks)]

app = FastAPI(lifespan=lifespan)
app.include_router(health_router)


@app.post("/orders", status_code=202)
async def create_order(order: Order, tasks: Queue) -> dict[str, str]:
    payment = tasks.add_task(charge, order, unique=f"charge {order.id}")
    receipt = tasks.add_task(send_receipt, order.email, order.total, parent=payment)
    parcel = tasks.add_task(pack, order, parent=payment)
    return {"payment": str(payment.id), "receipt": str(receipt.id), "parcel": str(parcel.id)}


@app.get("/tasks/{id}")
async def show_task(id: UUID, tasks: Queue) -> dict[str, Any]:
    status = await tasks.get_task_status(id)
    if status is None:
        raise HTTPException(404, "There is no such task.")
    return status
