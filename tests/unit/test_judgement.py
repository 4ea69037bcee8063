"""Who is to blame when a process doesn't answer, and what becomes of those who are not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from queued_tasks.actors.held import Held
from queued_tasks.actors.judgement import MOST_INTERRUPTIONS, Judgement, bereft, judge
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.lifecycle import Why
from queued_tasks.runtime.stacks import Account, Frame
from queued_tasks.runtime.task import Claimed

PLACE = (Frame("/srv/app/main.py", 7, "report"),)


def held(*, why: Why | None = None, **fields: Any) -> Held:
    """An attempt that has a process."""
    standard: dict[str, Any] = {
        "lease": new_id(),
        "lane": 1,
        "seq": 1,
        "id": new_id(),
        "attempt": 1,
        "failures": 0,
        "timeouts": 0,
        "crashes": 0,
        "function": "main:report",
        "name": "report",
        "executor": 0,
        "args": "[]",
        "kwargs": None,
        "context": None,
        "timeout": 10.0,
        "max_retries": 3,
        "flagged": False,
        "expired": False,
        "signature": None,
    }
    return Held(Claimed(**{**standard, **fields}), started=0.0, why=why, wished=None if why is None else 0.0)


def says(attempt: int | None = None, *, mark: int | None = None) -> Account:
    return Account(PLACE, mark, told=attempt is not None, attempt=attempt)


def ends(running: Mapping[int, Held], judgement: Judgement | None) -> list[str]:
    return [settled.outcome for settled in bereft(running, running, judgement, 20.0)]


def test_what_is_on_the_stack_is_to_blame_and_no_other_that_is_late() -> None:
    running = {1: held(), 2: held(), 3: held()}
    judgement = judge(running, [running[1], running[2]], says(2), alone=False)
    assert ends(running, judgement) == ["interrupted", "timeout", "interrupted"]


def test_what_is_to_blame_and_still_has_time_runs_again_alone() -> None:
    running = {1: held(), 2: held()}
    judgement = judge(running, [running[1]], says(2), alone=False)
    assert ends(running, judgement) == ["interrupted", "blocked"]


def test_when_nobody_knows_what_is_late_runs_again_alone() -> None:
    running = {1: held(), 2: held(), 3: held()}
    judgement = judge(running, [running[1], running[2]], None, alone=False)
    assert ends(running, judgement) == ["blocked", "blocked", "interrupted"]


def test_a_mark_that_two_may_have_says_nothing() -> None:
    running = {1: held(), 65: held()}
    judgement = judge(running, [running[1]], says(mark=1), alone=False)
    assert ends(running, judgement) == ["blocked", "interrupted"]


def test_what_came_back_too_often_runs_alone_when_nobody_knows() -> None:
    running = {1: held(), 2: held(attempt=1 + MOST_INTERRUPTIONS), 3: held(attempt=1 + MOST_INTERRUPTIONS, failures=1)}
    judgement = judge(running, [running[1]], None, alone=False)
    assert ends(running, judgement) == ["blocked", "blocked", "interrupted"]


def test_the_only_one_in_a_process_that_has_said_something_is_to_blame() -> None:
    running = {1: held()}
    assert ends(running, judge(running, [running[1]], says(), alone=False)) == ["timeout"]


def test_the_only_one_in_a_process_that_is_frozen_gets_another_chance() -> None:
    running = {1: held()}
    assert ends(running, judge(running, [running[1]], None, alone=False)) == ["blocked"]


def test_what_runs_alone_is_to_blame_for_whatever_happens_to_its_process() -> None:
    running = {1: held(timeouts=1, failures=1)}
    assert ends(running, judge(running, [running[1]], None, alone=True)) == ["failed"]


@pytest.mark.parametrize(
    ("why", "outcome"), [(Why.CANCEL, "cancelled"), (Why.STOP, "stopped"), (Why.DRAIN, "interrupted")]
)
def test_what_somebody_wanted_to_end_ends_as_he_wanted(why: Why, outcome: str) -> None:
    running = {1: held(why=why), 2: held()}
    for account in (says(1), says(2), None):
        assert ends(running, judge(running, [running[1]], account, alone=False))[0] == outcome


def test_a_stopped_one_waits_for_somebody() -> None:
    running = {1: held(why=Why.STOP)}
    (end,) = bereft(running, running, judge(running, [running[1]], says(1), alone=False), 20.0)
    assert end.delay == math.inf


def test_what_timed_out_shows_where_it_was() -> None:
    running = {1: held()}
    (end,) = bereft(running, running, judge(running, [running[1]], says(1), alone=False), 20.0)
    assert "main.py" in (end.exception_traceback or "")


def test_the_reason_names_the_task_and_the_place() -> None:
    running = {1: held(), 2: held()}
    reason = judge(running, [running[2]], says(2), alone=False).reason
    assert str(running[2].claimed.id) in reason
    assert "main.py:7 in report" in reason


def test_after_a_death_of_its_own_those_are_blamed_that_were_there_most_often() -> None:
    running = {1: held(), 2: held(crashes=1)}
    assert ends(running, None) == ["interrupted", "crashed"]


@pytest.mark.parametrize("judgement", [None, Judgement("it takes too much", fatal=True)])
def test_who_had_ended_before_a_death_is_not_blamed_for_it(judgement: Judgement | None) -> None:
    begun = {1: held(crashes=1), 2: held()}
    ended = {settled.id: settled.outcome for settled in bereft(begun, [2], judgement, 20.0)}
    assert ended == {begun[1].claimed.id: "interrupted", begun[2].claimed.id: "crashed"}


def test_who_had_ended_before_his_process_was_killed_runs_again() -> None:
    begun = {1: held(), 2: held()}
    judgement = judge({2: begun[2]}, [begun[2]], None, alone=True)
    ended = {settled.id: settled.outcome for settled in bereft(begun, [2], judgement, 20.0)}
    assert ended == {begun[1].claimed.id: "interrupted", begun[2].claimed.id: "timeout"}
