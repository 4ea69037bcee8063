"""Many objects are made without the collector of garbage, which is as it was afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from queued_tasks.runtime.uncollected import uncollected


@contextmanager
def collections() -> Iterator[list[str]]:
    """When the collector has begun its work."""
    begun: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        begun.append(phase)

    gc.callbacks.append(note)
    try:
        yield begun
    finally:
        gc.callbacks.remove(note)


def test_nothing_is_collected_inside() -> None:
    many = range(10 * gc.get_threshold()[0])
    with collections() as begun, uncollected():
        kept = [[number] for number in many]
        inside = [*begun]
    assert (inside, len(kept)) == ([], len(many))


def test_the_collector_works_again_afterwards_whatever_was_raised() -> None:
    with pytest.raises(KeyError), uncollected():
        raise KeyError
    assert gc.isenabled()


def test_who_has_stopped_the_collector_finds_it_stopped() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
