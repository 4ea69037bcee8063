"""Tracebacks as text that can be stored."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final

from .lifecycle import storable

LONGEST_TRACEBACK: Final = 64 * 1024  # characters


def formatted(
    kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
) -> str | None:
    """A traceback as text, bounded and storable; None for no exception."""
    if error is None:
        return None
    try:
        text = "".join(traceback.format_exception(kind, error, frames))
    except Exception as broken:
        text = f"{type(error).__name__} (its traceback can't be had: {type(broken).__name__})"
    return storable(text, LONGEST_TRACEBACK)
