"""Make many objects without the collector of garbage, which would look for some among them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage of this process for the length of a `with` block: let it be a matter of milliseconds."""
    if not gc.isenabled():  # by the user, or by another thread that is in here
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
