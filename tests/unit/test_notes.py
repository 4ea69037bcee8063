"""What attempts say is kept while nobody can record it, up to a bound."""

from __future__ import annotations

import msgspec

from queued_tasks.actors.held import Held, expired
from queued_tasks.actors.notes import FLUSH_EVERY, MOST_LINES, MOST_TEXT, Notes
from queued_tasks.actors.vitals import Vitals
from queued_tasks.runtime import wire
from tests.claimed import fresh


def lines(count: int) -> list[wire.LogLine]:
    return [wire.LogLine(1, 0.0, 20, "app", "said", None) for _ in range(count)]


def test_the_recorder_gets_no_more_before_it_is_through_with_what_it_has() -> None:
    notes, attempts = Notes(Vitals()), {1: Held(fresh())}
    notes.log(lines(1), attempts)
    first = notes.take_due(100.0)
    assert first is not None
    notes.log(lines(2), attempts)
    assert notes.take_due(200.0) is None
    first.done = True
    second = notes.take_due(200.0)
    assert second is not None
    assert (len(first.logs), len(second.logs), second.lost) == (1, 2, 0)


def test_lines_beyond_the_bound_are_counted_and_not_kept() -> None:
    notes, attempts = Notes(Vitals()), {1: Held(fresh())}
    notes.log(lines(MOST_LINES + 5), attempts)
    first = notes.take_due(100.0)
    assert first is not None
    assert (len(first.logs), first.lost) == (MOST_LINES, 5)
    first.done = True
    notes.log(lines(1), attempts)
    later = notes.take_due(100.0 + FLUSH_EVERY)
    assert later is not None
    assert (len(later.logs), later.lost) == (1, 0)


def test_lines_with_more_text_than_the_bound_are_counted_and_not_kept() -> None:
    notes, attempts = Notes(Vitals()), {1: Held(fresh()), 2: Held(fresh())}
    half = MOST_TEXT // 2
    for message, exception in [("a" * half, None), ("b", "c" * half), ("d" * half, None), ("e", None)]:
        notes.log([wire.LogLine(1, 0.0, 20, "app", message, exception)], attempts)
    first = notes.take_due(100.0)
    assert first is not None
    assert ([line.message[0] for line in first.logs], first.lost) == (["a", "d"], 2)


def test_what_an_attempt_takes_with_it_makes_room() -> None:
    notes, ended, other = Notes(Vitals()), fresh(), fresh()
    attempts = {1: Held(ended), 2: Held(other)}
    full = wire.LogLine(1, 0.0, 20, "app", "a" * MOST_TEXT, None)
    notes.log([full], attempts)
    assert len(notes.hand_over([expired(ended, 100.0)], [], []).logs) == 1
    notes.log([msgspec.structs.replace(full, no=2)], attempts)
    writes = notes.take_due(100.0)
    assert writes is not None
    assert ([line.claimed for line in writes.logs], writes.lost) == ([other], 0)
    writes.done = True
    notes.log([full], attempts)
    later = notes.take_due(200.0)
    assert later is not None
    assert (len(later.logs), later.lost) == (1, 0)
