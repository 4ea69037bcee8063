"""Signatures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from queued_tasks.runtime.errors import ConfigurationError
from queued_tasks.runtime.settings import Settings
from queued_tasks.runtime.signing import Seals, Signer
from queued_tasks.runtime.task import Executor, NewTask

TASK = NewTask(id=UUID(int=7), function="app:send", executor=Executor.ASYNC, args='["a"]')
OTHERS: dict[str, Any] = {
    "id": UUID(int=8),
    "function": "app:drop",
    "executor": Executor.SYNC,
    "args": '["b"]',
    "kwargs": '{"x": 1}',
    "name": "other",
    "channel": "mail",
    "key": "tenant",
    "priority": 1,
    "max_retries": 9,
    "timeout": 1.5,
    "run_at": datetime(2030, 1, 1, tzinfo=UTC),
    "expires_at": datetime(2030, 1, 1, tzinfo=UTC),
    "unique_key": "once",
    "auto_remove": True,
    "on_parent_failure": "run",
    "parents": (UUID(int=1),),
    "context": '{"tenant": 1}',
}


def signed(task: NewTask, *keys: str) -> NewTask:
    return replace(task, signature=Signer(keys).sign(task))


def test_a_signed_task_is_accepted() -> None:
    assert Signer(["key"]).accepts(signed(TASK, "key"))


def test_every_field_has_an_alteration_in_this_test() -> None:
    assert {*OTHERS, "signature"} == set(NewTask.__struct_fields__)


@pytest.mark.parametrize("field", OTHERS)
def test_a_task_altered_in_any_field_is_refused(field: str) -> None:
    altered = replace(signed(TASK, "key"), **{field: OTHERS[field]})
    assert not Signer(["key"]).accepts(altered)


def test_an_unsigned_task_is_refused() -> None:
    assert not Signer(["key"]).accepts(TASK)


def test_another_key_is_refused() -> None:
    assert not Signer(["key"]).accepts(signed(TASK, "other"))


def test_an_old_key_is_accepted_while_it_is_listed() -> None:
    assert Signer.of("new, old").accepts(signed(TASK, "old"))


def test_the_first_key_signs() -> None:
    assert Signer.of("new,old").sign(TASK) == Signer.of("new").sign(TASK)


def test_text_can_not_move_from_one_field_to_the_next() -> None:
    one = replace(TASK, name="ab", channel="c")
    other = replace(TASK, name="a", channel="bc")
    assert Signer(["key"]).sign(one) != Signer(["key"]).sign(other)


def test_the_same_instant_in_another_time_zone_has_the_same_signature() -> None:
    there = timezone(timedelta(hours=5))
    instant = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
    one, other = replace(TASK, run_at=instant), replace(TASK, run_at=instant.astimezone(there))
    assert Signer(["key"]).sign(one) == Signer(["key"]).sign(other)


@pytest.mark.parametrize("secret", ["", "a,,b", " , "])
def test_an_empty_key_is_refused_with_the_name_of_the_setting(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="QUEUE_SECRET_KEY"):
        Signer.of(secret)


def test_the_signature_is_32_bytes() -> None:
    assert len(Signer([str(uuid4())]).sign(TASK)) == 32


def test_seals_want_a_signature() -> None:
    assert "is not signed" in (Seals(Signer(["key"])).flaw_of(TASK) or "")


def test_seals_want_the_right_one() -> None:
    seals = Seals(Signer(["key"]), ["app:send"])
    assert seals.flaw_of(signed(TASK, "key")) is None
    assert "does not match" in (seals.flaw_of(signed(TASK, "other")) or "")


def test_a_function_may_be_excused() -> None:
    assert Seals(Signer(["key"]), ["app:send"]).flaw_of(TASK) is None


def test_settings_without_a_key_check_nothing() -> None:
    assert Seals.of(Settings()) is None


def test_instants_are_signed_to_the_microsecond_however_far_away() -> None:
    far = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    one = signed(replace(TASK, run_at=far), "key")
    assert not Signer(["key"]).accepts(replace(one, run_at=far - timedelta(microseconds=1)))
