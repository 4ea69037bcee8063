"""Exceptions that are hard to read, by what is odd about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from queued_tasks.runtime.retry import Cancel, Retry


class Gone(Cancel):
    def __init__(self, who: str) -> None:
        self.who = who


class Later(Retry):
    def __init__(self, seconds: int) -> None:
        self.in_ = seconds  # type: ignore[assignment]


class _Unnamed(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class Unreadable(Exception, metaclass=_Unnamed):
    def __str__(self) -> str:
        raise SystemExit("no text")

    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no traceback")


class Shapeless(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("no class")


def _deep(error: Exception) -> Exception:
    for _ in range(5000):
        error = ExceptionGroup("several", [error])
    return error


ODD: dict[str, Callable[[], BaseException]] = {
    "an exception as the reason": lambda: Cancel(ValueError("boo")),  # type: ignore[arg-type]
    "a subclass without super": lambda: Gone("ada"),
    "a retry without super": lambda: Later(5),
    "deep": lambda: _deep(ValueError()),
    "unreadable": Unreadable,
    "shapeless": Shapeless,
}
