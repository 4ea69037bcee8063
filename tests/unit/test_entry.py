"""A task on its way into the database."""

from __future__ import annotations

from unittest.mock import Mock

from queued_tasks.runtime.entry import Entry
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.task import Executor, NewTask


def entry() -> Entry:
    return Entry(NewTask(id=new_id(), function="app:send", executor=Executor.ASYNC, args='["secret"]'), Mock())


def test_its_id_is_that_of_the_task_that_stands() -> None:
    loser = entry()
    assert loser.id == loser.task.id
    loser.winner = new_id()
    assert loser.id == loser.winner


def test_no_two_are_the_same() -> None:
    one = entry()
    assert Entry(one.task, one.home) != one
    assert len({one, Entry(one.task, one.home)}) == 2


def test_what_it_looks_like_tells_no_arguments() -> None:
    assert "secret" not in repr(entry())
