"""Task functions for trials by fault: each run leaves a line in a ledger when it begins, and one when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from pathlib import Path
from uuid import uuid4

from queued_tasks import QueuedTasks, get_current_task, getLogger, set_context, task

log = getLogger(__name__)


async def work(ledger: str, seconds: float) -> str:
    """Take `seconds`; return what tells this run from all others, and leave that in the context and the log, too."""
    run = _begin(ledger)
    set_context("run", run)
    log.info(run)
    await asyncio.sleep(seconds)
    return _end(ledger, run)


def work_plainly(ledger: str, seconds: float) -> str:
    run = _begin(ledger)
    set_context("run", run)
    log.info(run)
    time.sleep(seconds)
    return _end(ledger, run)


async def work_and_add(ledger: str, seconds: float) -> str:
    """Work, and add a child that is to be there once, however often this runs."""
    QueuedTasks.current().add_task(work, ledger, 0.0)
    return await work(ledger, seconds)


async def block(ledger: str, seconds: float) -> str:
    """Keep the loop from everything else for `seconds`."""
    run = _begin(ledger)
    time.sleep(seconds)  # noqa: ASYNC251  # that is the fault
    set_context("run", run)
    log.info(run)
    return _end(ledger, run)


@task(max_retries=0)
async def spin(ledger: str) -> None:
    _begin(ledger)
    while True:
        pass


@task(max_retries=0)
def spin_plainly(ledger: str) -> None:
    _begin(ledger)
    while True:
        pass


@task(max_retries=0)
async def swallow(ledger: str) -> None:
    _begin(ledger)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


@task(max_retries=0)
def match_for_ages(ledger: str) -> None:
    """Spend hours in one C call that never lets go of the GIL."""
    _begin(ledger)
    re.fullmatch(r"(a|aa)+b", "a" * 100)


def _begin(ledger: str) -> str:
    run = uuid4().hex
    _write(ledger, "begin", run)
    return run


def _end(ledger: str, run: str) -> str:
    _write(ledger, "end", run)
    return run


def _write(ledger: str, what: str, run: str) -> None:
    current = get_current_task()
    assert current is not None
    line = f"{what} {current.id} {current.attempt} {run} {os.getpid()} {time.monotonic()}\n"
    # One write to a file opened for appending: whole, in order, and kept when this process is killed a moment later.
    with Path(ledger).open("ab", buffering=0) as file:
        file.write(line.encode())
