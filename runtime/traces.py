"""Tracebacks as text that can be stored."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final

from .lifecycle import Interrupted, name_of, storable

LONGEST_TRACEBACK: Final = 64 * 1024  # characters

_FRAMES: Final = BaseException.__dict__["__traceback__"].__get__  # what a class has made of it may raise


def frames_of(error: BaseException) -> TracebackType | None:
    """Where an exception has come through."""
    frames: TracebackType | None = _FRAMES(error)
    return frames


def formatted(
    kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
) -> str | None:
    """A traceback as text, bounded and storable; None for no exception."""
    if error is None:
        return None
    try:
        text = "".join(traceback.format_exception(kind, error, frames))
    except Interrupted:
        raise
    except BaseException as broken:
        text = f"{name_of(error)} (its traceback can't be had: {name_of(broken)})"
    return storable(text, LONGEST_TRACEBACK)
