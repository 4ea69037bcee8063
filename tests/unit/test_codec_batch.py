"""The arguments of many calls at once are what each of them is by itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import pytest

from queued_tasks.runtime.codec import MAX_ARGUMENT_BYTES, batch_encoder_of, encoder_of
from queued_tasks.runtime.errors import InvalidTask, SerializationError
from tests.codec_types import ID, Colour, Function, Opaque, User, anything, taking


def send(to: str, copies: int = 1) -> None: ...


def many(*rest: int) -> None: ...


def needing(to: str, *, at: date) -> None: ...


def nothing() -> None: ...


def one_by_one(func: Function, calls: Sequence[tuple[Any, ...]]) -> list[str]:
    encode = encoder_of(func)
    return [encode(args, {})[0] for args in calls]


ALIKE: list[tuple[Function, list[tuple[Any, ...]]]] = [
    (taking(int), [(number,) for number in range(3)]),
    (taking(float), [(0.5,), (1,), (1e300,)]),
    (taking(str), [("a",), ("line\nline",), ("NaN, Infinity and **********",)]),
    (taking(str), [("x" * 1_000,), ("☃",)]),
    (taking(int), [(10**500,), (1,)]),
    (taking(list[date]), [([date.min],), ([],)]),
    (taking(int | None), [(None,), (1,)]),
    (taking(User), [(User(userId=1),), (User(userId=2),)]),
    (taking(Colour), [(Colour.RED,), (Colour.RED,)]),
    (anything, [(1, None, "a"), ([ID],), ()]),
    (send, [("a",), ("b", 2), ("c",)]),
    (send, [("a", 1), ("b", 2)]),
    (many, [(), (1,), (1, 2)]),
    (nothing, [(), ()]),
    (nothing, []),
]


@pytest.mark.parametrize(("func", "calls"), ALIKE, ids=[str(at) for at in range(len(ALIKE))])
def test_a_batch_is_encoded_as_its_calls_are_one_by_one(func: Function, calls: Sequence[tuple[Any, ...]]) -> None:
    assert batch_encoder_of(func)(calls) == one_by_one(func, calls)


@pytest.mark.parametrize("annotation", [Iterable[int], Any])
def test_what_can_be_read_only_once_is_read_only_once(annotation: Any) -> None:
    texts = batch_encoder_of(taking(annotation))([(iter([number]),) for number in (1, 2)])
    assert texts == ["[[1]]", "[[2]]"]


@pytest.mark.parametrize(
    ("func", "calls", "kind", "text"),
    [
        (taking(int), [(1,), ("a",), (), (2.5,)], SerializationError, "must be int: .*, got str"),
        (taking(str), [("a",), ("\0",), (1,)], SerializationError, "holds a NUL character"),
        (
            taking(str),
            [("a",), ("\n",), ("\0",), ("x" * MAX_ARGUMENT_BYTES,)],
            SerializationError,
            "holds a NUL character",
        ),
        (taking(str), [("a",), ("\ud800",), ("\0",)], SerializationError, "must be str|surrogate"),
        (taking(str), [("a",), ("x" * MAX_ARGUMENT_BYTES,), ("\0",)], SerializationError, "more than 1.0 MiB"),
        (taking(float), [(1.0,), (math.nan,), ("a",)], SerializationError, "holds NaN"),
        (anything, [("a",), (Opaque(),), ("\0",)], SerializationError, "Opaque"),
        (send, [("a", 1), (), (1, 1)], InvalidTask, "'to' is missing"),
        (send, [("a", 1), (1, 1), ()], SerializationError, "argument 'to'"),
        (needing, [("a",), ("b",)], InvalidTask, "'at' is missing"),
    ],
)
def test_the_first_call_that_is_wrong_is_what_is_told(
    func: Function, calls: Sequence[tuple[Any, ...]], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        batch_encoder_of(func)(calls)
    with pytest.raises(kind) as alone:
        one_by_one(func, calls)
    assert str(caught.value) == str(alone.value)
