"""Ids of new tasks."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from queued_tasks.runtime.ids import new_id, new_ids

FORKING = """
import os
from queued_tasks.runtime.ids import new_id
new_id()
if (child := os.fork()) == 0:
    print(new_id(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(new_id())
"""


def test_an_id_is_a_uuid_of_version_7() -> None:
    id = new_id()
    assert (id.version, id.variant) == (7, RFC_4122)
    assert id == UUID(str(id))


def test_an_id_begins_with_the_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    id = new_id()
    assert before <= id.int >> 80 <= time.time_ns() // 1_000_000 + 1


def test_ids_are_in_the_order_in_which_they_are_made() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert len({*made}) == len(made)


def test_ids_that_are_made_at_once_are_in_order_and_behind_those_before() -> None:
    made = [new_id(), *new_ids(5_000), new_id(), *new_ids(1), *new_ids(0), new_id()]
    assert made == sorted(made)
    assert len({id.int & (1 << 62) - 1 for id in made}) == len(made) == 5_004
    assert {(id.version, id.variant) for id in made} == {(7, RFC_4122)}


def test_ids_keep_their_order_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert before < new_id() < new_ids(2)[0] < new_id()


def test_the_last_62_bits_of_ids_tell_them_apart_whatever_the_time() -> None:
    with ThreadPoolExecutor(4) as threads:
        made = [*threads.map(lambda _: new_id(), range(20_000))]
    assert len({id.int & (1 << 62) - 1 for id in made}) == len(made)


def test_a_forked_process_draws_other_random_bits_than_its_parent() -> None:
    # in a process without threads, which a fork would warn of
    said = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=True).stdout.split()
    theirs, ours = (UUID(line).int & (1 << 62) - 1 for line in said)
    assert theirs != ours
