"""What a process says of its main thread, read."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

from queued_tasks.runtime import execute
from queued_tasks.runtime.stacks import MARKS, marked, read

DUMP = f"""Stack (most recent call first):
  File "/srv/app/reports.py", line 12 in total
  File "/srv/app/main.py", line 7 in report
  File "{Path(execute.__file__)}", line 70 in run
  File "/srv/queued_tasks/actors/worker_main.py", line 160 in <attempt 3>
  File "/usr/lib/python3.11/asyncio/runners.py", line 118 in run
"""


def test_who_says_nothing_gives_no_account() -> None:
    assert read("") is None


def test_what_python_says_counts_more_than_the_mark() -> None:
    account = read(f"{DUMP}\nattempt 68;\n")
    assert account is not None
    assert account.points_at(68)
    assert not account.points_at(3)


def test_without_a_word_from_python_the_mark_points_at_all_numbers_that_it_may_stand_for() -> None:
    account = read(DUMP)
    assert account is not None
    assert [number for number in range(3 * MARKS) if account.points_at(number)] == [3, 3 + MARKS, 3 + 2 * MARKS]


def test_what_belongs_to_no_attempt_points_at_none() -> None:
    account = read('  File "/srv/app/main.py", line 7 in serve\n\nattempt ;\n')
    assert account is not None
    assert not any(account.points_at(number) for number in range(MARKS))


def test_a_word_that_has_not_come_whole_does_not_count() -> None:
    account = read(f"{DUMP}\nattempt 6")
    assert account is not None
    assert not account.told


def test_the_place_is_the_innermost_one_of_the_user_s() -> None:
    account = read(DUMP)
    assert account is not None
    assert account.place == "/srv/app/reports.py:12 in total"


def test_the_traceback_begins_in_the_task_s_function() -> None:
    account = read(DUMP)
    assert account is not None
    assert (account.traceback or "").splitlines()[1:] == [
        '  File "/srv/app/main.py", line 7, in report',
        '  File "/srv/app/reports.py", line 12, in total',
    ]


def test_a_marked_twin_does_the_same_under_another_name() -> None:
    def name(of: list[FrameType]) -> str:
        return of[0].f_code.co_name

    def caller() -> str:
        return name([sys._getframe()])

    assert (caller(), marked(caller)[5]()) == ("caller", "<attempt 5>")
