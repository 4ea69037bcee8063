"""What follows on an order. Plain functions: the shop calls them through tasks, its tests call them as they are."""

import asyncio
from decimal import Decimal

from pydantic import BaseModel

from queued_tasks import Cancel, getLogger, set_context, task

log = getLogger(__name__)


class Order(BaseModel):
    id: int
    email: str
    total: Decimal
    items: list[str]


@task(max_retries=5, timeout=30)
async def charge(order: Order) -> str:
    """Charge the customer's card; the number of the payment."""
    if order.total <= 0:
        raise Cancel("there is nothing to pay")
    await asyncio.sleep(0.1)  # stands for the call of a payment provider
    return f"payment-{order.id}"


async def send_receipt(email: str, total: Decimal) -> str:
    """Mail the receipt."""
    log.info("a receipt over %s goes to %s", total, email)
    return f"receipt for {email}"


@task(channel="warehouse")
def pack(order: Order) -> int:
    """Pack the items, one by one; how many there were. A `def` runs in a process of its own and may block."""
    for count, item in enumerate(order.items, 1):
        set_context("packed", {"count": count, "last": item})
    return len(order.items)
