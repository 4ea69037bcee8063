"""Lines that wait to be sent, whoever logs, and whenever."""

from __future__ import annotations

import logging
from collections import deque
from threading import Thread

import pytest

from queued_tasks.runtime import logging as module
from queued_tasks.runtime.logging import Lines


def test_a_finalizer_that_logs_while_lines_are_taken_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes an object may start the garbage collector, which may run a finalizer."""
    lines = Lines(lambda: None)

    def collected() -> deque[object]:
        monkeypatch.undo()
        lines.add(logging.INFO, "app", "unclosed", None)
        return deque()

    lines.add(logging.INFO, "app", "first", None)
    monkeypatch.setattr(module, "deque", collected)
    taker = Thread(target=lines.take, daemon=True)
    taker.start()
    taker.join(10)
    assert not taker.is_alive()
    assert lines or lines.take() == []
