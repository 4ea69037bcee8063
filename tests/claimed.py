"""Attempts as a claim gives them."""

from __future__ import annotations

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.task import Claimed


def fresh(crashes: int = 0) -> Claimed:
    """The next attempt at a task under which so many workers have died."""
    return Claimed(
        lease=new_id(),
        lane=1,
        seq=1,
        id=new_id(),
        attempt=crashes + 1,
        failures=0,
        timeouts=0,
        crashes=crashes,
        function="main:report",
        name="report",
        executor=0,
        args="[]",
        kwargs=None,
        context=None,
        timeout=None,
        max_retries=3,
        flagged=False,
        expired=False,
        signature=None,
    )
