"""The hooks around an attempt: what becomes of their errors."""

from __future__ import annotations

from typing import Any

from loguru import logger

from queued_tasks.runtime.around import log_failures
from queued_tasks.runtime.hooks import on_post_run


def test_the_error_of_a_hook_that_no_sink_can_show_is_logged_by_its_name() -> None:
    shown: list[str] = []

    def show(message: Any) -> None:
        if message.record["exception"] is not None:
            raise SystemExit("as the text of an exception may")
        shown.append(message.record["message"])

    sink = logger.add(show)
    try:
        log_failures(on_post_run, [ValueError()])
    finally:
        logger.remove(sink)
    assert shown == ["A hook of on_post_run failed, with an exception that can't be shown: ValueError"]
