"""A plain function, and a hook behind it that goes on for as long as it can, for tasks of certain names."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from queued_tasks import on_post_run
from queued_tasks.runtime.hooks import HookTask
from tests.apps.work import mark

HANG = "its hook hangs"
SWALLOW = "its hook swallows what interrupts it"


def count_runs(folder: str) -> int:
    mark(folder, "ran")
    return len([*Path(folder).glob("ran.*")])


@on_post_run
def go_on(task: HookTask, **_: object) -> None:
    if task.name == HANG:
        time.sleep(1000)
    while task.name == SWALLOW:
        with contextlib.suppress(BaseException):
            time.sleep(1000)
